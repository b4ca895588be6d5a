"""Implementations for a CPU: matrix products, depthwise convolution, dropout, and the training of whole modules."""
