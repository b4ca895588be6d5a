"""The callbacks that notice what goes wrong in a training, and say it once, in words, with the remedy."""
