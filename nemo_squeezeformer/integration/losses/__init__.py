"""Losses that NeMo does not have, or has only for CUDA. They need only torch."""
