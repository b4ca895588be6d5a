"""Other ways to compute attention, subsampling, projections and norms, with the same result."""

from . import absorbed, choice, norms, pointwise, subsampling_pieces  # registers them

__all__ = ["absorbed", "choice", "norms", "pointwise", "subsampling_pieces"]
