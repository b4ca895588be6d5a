"""The analysis of a model without training it, printed by `nemo-squeezeformer info`, and of its frames' redundancy.

For `info` the networks are on PyTorch's ``meta`` device. Its tensors have shapes but no values, so that even the
largest size takes only seconds.
"""
