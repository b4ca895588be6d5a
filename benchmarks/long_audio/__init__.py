"""How many words are recognized in one call with an hour of audio, with and without local attention?"""
