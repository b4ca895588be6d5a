"""Checks for the mistakes that people make at the first attempt to train."""
