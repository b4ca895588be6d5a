"""Checks of training data that need more than one manifest or the samples, and the report of ``check``."""
