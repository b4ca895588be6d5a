"""The layers between Conformer's and Squeezeformer's: its order of modules, with a LayerNorm on both sides of each."""

from __future__ import annotations

from torch import nn

from .layer import SqueezeformerLayer


class MFCFLayer(SqueezeformerLayer):
    """A SqueezeformerLayer as it was before its norms were simplified (paper, section 3.2.2).

    The LayerNorms at the entrances have the names of the scales that replace them. ``adaptive_scale`` has no meaning
    here. The feed-forward modules count in full, as in the authors' Squeezeformer, and not by half, as in Conformer.
    """

    pre_norm = True

    def entrance(self, d_model: int, adaptive_scale: bool, eps: float) -> nn.Module:
        """What each branch begins with."""
        return nn.LayerNorm(d_model, eps)


class GatedMFCFLayer(MFCFLayer):
    """The same before the activations were unified: its convolution is Conformer's, with GLU (section 3.2.1)."""

    gated = True
