"""Implementations for a CPU: matrix products, depthwise convolution, dropout, and the training of whole modules."""

from . import convolution, depthwise, dropout, feed_forward  # registers them

__all__ = ["convolution", "depthwise", "dropout", "feed_forward"]
