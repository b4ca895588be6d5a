"""The Conformer layer: feed-forward, attention, convolution, feed-forward (arXiv 2005.08100).

The layer adds half of the output of each feed-forward module.
"""

from __future__ import annotations

from torch import Tensor, nn

from .attention.multi_head import MultiHeadAttention
from .convolution import ConvolutionModule
from .dropout import Dropout
from .feed_forward import FeedForward
from .frames.masks import Frames
from .frames.state import LayerState


class ConformerLayer(nn.Module):
    """A Conformer layer: four residual branches, followed by a LayerNorm.

    Each branch is a LayerNorm and a module. The arithmetic and the names in the state dict equal the arithmetic and the
    names of NeMo's ``ConformerLayer``. ``adaptive_scale`` has no effect, because the layer has norms in place of the
    scales of Squeezeformer.
    """

    gated = True
    pre_norm = True

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        self_attn: MultiHeadAttention,
        conv: ConvolutionModule,
        dropout: float = 0.0,
        adaptive_scale: bool = True,
        use_bias: bool = True,
        eps: float = 1e-5,
        branch_weight: float = 1.0,
    ):
        super().__init__()
        if branch_weight != 1.0:
            raise ValueError("deep_norm=True with block='conformer': this layer has no LayerNorm after its sums")
        self.norm_feed_forward1 = nn.LayerNorm(d_model, eps)
        self.feed_forward1 = FeedForward(d_model, d_ff, dropout, use_bias)

        self.norm_self_att = nn.LayerNorm(d_model, eps)
        self.self_attn = self_attn

        self.norm_conv = nn.LayerNorm(d_model, eps)
        self.conv = conv

        self.norm_feed_forward2 = nn.LayerNorm(d_model, eps)
        self.feed_forward2 = FeedForward(d_model, d_ff, dropout, use_bias)
        self.norm_out = nn.LayerNorm(d_model, eps)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, frames: Frames, positions: Tensor | None, state: LayerState | None = None) -> Tensor:
        """Run the layer: x (B, T, D), positions (S + T - 1, D) or None -> (B, T, D)."""
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        x = x + self.dropout(self.self_attn(self.norm_self_att(x), frames, positions, state))
        x = self.adapt("attention", x, frames, positions)
        x = x + self.dropout(self.conv(self.norm_conv(x), frames, state))
        x = x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x)))
        return self.adapt("layer", self.norm_out(x), frames, positions)

    def adapt(self, after: str, x: Tensor, frames: Frames, positions: Tensor | None) -> Tensor:
        """Return ``x`` (B, T, D) unchanged; subclasses apply adapters here.

        Args:
            after: The step that is complete: ``attention``, or ``layer`` for the whole layer.
        """
        return x
