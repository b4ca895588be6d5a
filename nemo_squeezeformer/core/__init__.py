"""The Squeezeformer encoder in plain torch, usable without NeMo (Kim et al. 2022, arXiv 2206.00888)."""

from . import cpu, inference, kernels  # other ways to compute the network, which it does not know
from .encoder import SqueezeformerEncoder
from .frames.state import EncoderState

__all__ = ["EncoderState", "SqueezeformerEncoder", "cpu", "inference", "kernels"]
