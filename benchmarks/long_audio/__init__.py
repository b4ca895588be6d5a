"""How many words of an hour of audio are recognized in one call, with and without local attention, and cut at pauses?"""
