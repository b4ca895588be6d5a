"""Fast implementations of attention, subsampling and projections, with the results of the reference implementations."""

from . import absorbed_attention, choice, pointwise, subsampling_pieces  # these imports register the implementations

__all__ = ["absorbed_attention", "choice", "pointwise", "subsampling_pieces"]
