"""What NeMo needs to know the encoder. Modules of this room alone import NeMo at their top, but for ``register``."""
