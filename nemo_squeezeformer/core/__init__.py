"""The Squeezeformer encoder in plain torch, usable without NeMo (Kim et al. 2022, arXiv 2206.00888)."""

# These packages register the fast implementations. The modules of the network do not import these packages.
from . import cpu, inference, kernels
from .encoder import SqueezeformerEncoder
from .frames.state import EncoderState

__all__ = ["EncoderState", "SqueezeformerEncoder", "cpu", "inference", "kernels"]
