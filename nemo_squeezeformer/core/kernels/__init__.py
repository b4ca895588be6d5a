"""Fast implementations of attention, subsampling and projections. Their results equal the reference implementations."""

from . import absorbed_attention, choice, pointwise, subsampling_pieces  # these imports register them

__all__ = ["absorbed_attention", "choice", "pointwise", "subsampling_pieces"]
