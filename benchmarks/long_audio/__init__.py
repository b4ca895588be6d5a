"""What becomes of words in one call of an hour, with a window and without?"""
