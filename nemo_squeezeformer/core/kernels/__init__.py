"""Other ways to compute attention, subsampling and projections, with the same result."""

from . import absorbed_attention, choice, pointwise, subsampling_pieces  # registers them

__all__ = ["absorbed_attention", "choice", "pointwise", "subsampling_pieces"]
