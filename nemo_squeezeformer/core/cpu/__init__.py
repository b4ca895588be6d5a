"""Fast implementations for CPUs: matrix products, dropout, and the training of whole modules."""

from . import convolution, dropout, feed_forward  # these imports register the implementations

__all__ = ["convolution", "dropout", "feed_forward"]
