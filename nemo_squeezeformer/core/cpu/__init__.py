"""Implementations for a CPU: matrix products, dropout, and the training of whole modules."""

from . import convolution, dropout, feed_forward  # registers them

__all__ = ["convolution", "dropout", "feed_forward"]
