"""The settings of an encoder: the names of the arguments, and the types and the ranges of the values."""
