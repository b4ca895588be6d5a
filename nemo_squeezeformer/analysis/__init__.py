"""The analyses of a model that `nemo-squeezeformer info` and `nemo-squeezeformer redundancy` print.

For `info` the networks are on PyTorch's ``meta`` device. Tensors on this device have shapes but no values. The analysis
of the largest size therefore needs only seconds.
"""
