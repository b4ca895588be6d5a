"""The Squeezeformer encoder in plain torch, usable without NeMo (Kim et al. 2022, arXiv 2206.00888)."""

from .encoder import SqueezeformerEncoder
from .frames.state import EncoderState

__all__ = ["EncoderState", "SqueezeformerEncoder"]
