"""The implementation of ``SqueezeformerEncoder.optimize_for_inference``: faster modules for inference only."""

from . import fused_projections, optimize  # these imports register the implementations
from .guard import refuse

__all__ = ["fused_projections", "optimize", "refuse"]
