"""The layers between Conformer and Squeezeformer: Squeezeformer's order, with LayerNorms around each module."""

from __future__ import annotations

from torch import nn

from .layer import SqueezeformerLayer


class MFCFLayer(SqueezeformerLayer):
    """A ``SqueezeformerLayer`` before the paper simplifies its norms (paper, section 3.2.2).

    The LayerNorm before each module has the name of the scale that replaces it in ``SqueezeformerLayer``.
    ``adaptive_scale`` has no effect. The output of a feed-forward module is added in full, as in the authors'
    Squeezeformer. Conformer adds half of it.
    """

    pre_norm = True

    def entrance(self, d_model: int, adaptive_scale: bool, eps: float) -> nn.Module:
        """Return the first module of a branch, before attention, feed-forward or convolution."""
        return nn.LayerNorm(d_model, eps)


class GatedMFCFLayer(MFCFLayer):
    """An ``MFCFLayer`` before the paper unifies the activations: its convolution has GLU (section 3.2.1)."""

    gated = True
