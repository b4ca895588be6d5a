"""The integration of the encoder with NeMo.

Only the modules of this subpackage import NeMo at the top of the file. The module ``register`` does not import NeMo,
so that the import of ``nemo_squeezeformer`` stays fast.
"""
