"""The forms of an encoder's modules that inference alone can have: ``SqueezeformerEncoder.optimize_for_inference``."""

from . import fused_projections, optimize  # registers them
from .guard import refuse

__all__ = ["fused_projections", "optimize", "refuse"]
