"""What can be said of a model without training or running it: `nemo-squeezeformer info` prints it.

Networks lie on PyTorch's ``meta`` device here, whose tensors have shapes and no values, so that size l takes seconds.
"""
