"""How many words of an hour of audio are recognized in one call, with a window of attention, and cut at pauses?"""
