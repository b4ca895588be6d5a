"""The integration of the encoder with NeMo.

A module of this subpackage may import NeMo at the top of the file. Modules of other subpackages import NeMo only inside
functions. The module ``register`` does not import NeMo, so that the import of ``nemo_squeezeformer`` stays fast.
"""
