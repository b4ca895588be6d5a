"""The integration of the encoder with NeMo.

Only modules of this package import NeMo at their top. ``register`` does not import NeMo, so that importing
``nemo_squeezeformer`` stays fast.
"""
