"""The forms of an encoder's modules that inference alone can have: ``SqueezeformerEncoder.optimize_for_inference``."""

from . import optimize  # registers it
from .guard import refuse

__all__ = ["optimize", "refuse"]
