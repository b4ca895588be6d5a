"""The layers between Conformer and Squeezeformer, with the order of modules of Squeezeformer.

These layers have a LayerNorm before each module and a LayerNorm after each residual connection.
"""

from __future__ import annotations

from torch import nn

from .layer import SqueezeformerLayer


class MFCFLayer(SqueezeformerLayer):
    """A ``SqueezeformerLayer`` with a LayerNorm in place of each scale.

    Section 3.2.2 of the paper replaces these norms by scales. The LayerNorm before each module has the name of the
    scale in ``SqueezeformerLayer``. ``adaptive_scale`` has no effect. The layer adds the whole output of a feed-forward
    module, as in the authors' Squeezeformer. Conformer adds half of the output.
    """

    pre_norm = True

    def entrance(self, d_model: int, adaptive_scale: bool, eps: float) -> nn.Module:
        """Return the first module of a branch, before attention, feed-forward or convolution."""
        return nn.LayerNorm(d_model, eps)


class GatedMFCFLayer(MFCFLayer):
    """An ``MFCFLayer`` with GLU in the convolution module. Section 3.2.1 of the paper replaces GLU by Swish."""

    gated = True
