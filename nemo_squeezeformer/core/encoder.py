"""The Squeezeformer encoder (Kim et al. 2022, arXiv 2206.00888)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .attention import build_attention, position_biases
from .convolution import ConvolutionModule
from .frames import Frames
from .layer import SqueezeformerLayer
from .positions import build_positions
from .streaming import EncoderState, LayerState
from .subsampling import StridingSubsampling, build_subsampling
from .temporal_unet import TimeReduction, upsample


class SqueezeformerEncoder(nn.Module):
    """Subsampling, then layers of attention, feed-forward and convolution, the middle ones at half the frame rate.

    The temporal U-Net is a residual branch: ``x + recover(upsample(run(reduce(x))))``. Inside it run the layers from
    ``time_reduce_idx`` to the one before ``time_recovery_idx``. Arguments, their defaults and the names in the state
    dict are those of NeMo 2.7.3.

    Args:
        feat_in: feature channels F, for instance mel bins.
        n_layers: number of layers.
        d_model: width D; even.
        feat_out: width of the output; -1 for ``d_model``.
        subsampling: ``dw_striding`` (the paper's), ``striding``, ``stacking``, ``stacking_norm``, or None.
        subsampling_factor: how many feature frames make an encoder frame; 1 for none.
        subsampling_conv_channels: channels of the subsampling convolutions; -1 for ``d_model``.
        ff_expansion_factor: inner width of the feed-forward modules, in units of ``d_model``.
        self_attention_model: ``rel_pos`` or ``abs_pos``.
        n_heads: attention heads H; divides ``d_model``.
        att_context_size: (left, right) frames, at the rate before the U-Net, that attention reaches; -1 is unlimited.
        xscaling: multiply the subsampled features by sqrt(``d_model``).
        untie_biases: each layer has its own position biases u and v.
        pos_emb_max_len: accepted for old recipes; positions are computed for the length at hand.
        conv_kernel_size: frames that the depthwise convolution of a layer sees; odd.
        conv_norm_type: ``batch_norm``, ``layer_norm``, ``instance_norm``, ``fused_batch_norm`` or ``group_normN``.
            Instance and group norm take their statistics over padding too, so they depend on the batch.
        dropout: of every branch, and of the subsampled features.
        dropout_emb: of the relative position encodings outside the U-Net.
        dropout_att: of the attention weights.
        adaptive_scale: learn the scaling in front of each module, or leave it at the identity.
        time_reduce_idx: the first layer at half the frame rate; None for no temporal U-Net.
        time_recovery_idx: the first layer at the full rate again; None for the last one.
        streaming: causal convolutions, and attention over whole chunks of right context + 1 frames, so that
            ``forward`` with a state gives chunk by chunk what it gives for the whole.

    Raises:
        ValueError: names the setting that is wrong, and what it may be.
    """

    layer_class: type[SqueezeformerLayer] = SqueezeformerLayer
    time_reduce_layer: Any  # None, as time_recovery_layer is, where there is no temporal U-Net
    time_recovery_layer: Any

    def __init__(
        self,
        feat_in: int,
        n_layers: int,
        d_model: int,
        feat_out: int = -1,
        subsampling: str | None = "dw_striding",
        subsampling_factor: int = 4,
        subsampling_conv_channels: int = -1,
        ff_expansion_factor: int = 4,
        self_attention_model: str = "rel_pos",
        n_heads: int = 4,
        att_context_size: Sequence[int] | None = None,
        xscaling: bool = True,
        untie_biases: bool = True,
        pos_emb_max_len: int = 5000,
        conv_kernel_size: int = 31,
        conv_norm_type: str = "batch_norm",
        dropout: float = 0.1,
        dropout_emb: float = 0.1,
        dropout_att: float = 0.0,
        adaptive_scale: bool = True,
        time_reduce_idx: int | None = None,
        time_recovery_idx: int | None = None,
        streaming: bool = False,
    ):
        super().__init__()
        if d_model % 2:
            raise ValueError(f"d_model={d_model} must be even: position encodings pair sines with cosines")
        self.feat_in, self.d_model, self.streaming = feat_in, d_model, streaming
        self.feat_out = d_model if feat_out == -1 else feat_out
        self.att_context_size = context(att_context_size)
        self.reduced = _reduced_layers(n_layers, time_reduce_idx, time_recovery_idx)
        self.subsampling_factor = subsampling_factor if subsampling else 1
        self.xscale = math.sqrt(d_model) if xscaling else 1.0

        channels = d_model if subsampling_conv_channels == -1 else subsampling_conv_channels
        self.pre_encode = build_subsampling(subsampling, feat_in, d_model, subsampling_factor, channels, streaming)
        self.dropout_emb, self.untie_biases = dropout_emb, untie_biases
        self.pos_enc, self.time_reduce_pos_enc = build_positions(self_attention_model, dropout_emb)
        self.dropout = nn.Dropout(dropout)
        self.pre_ln = nn.LayerNorm(d_model)

        biases = None if untie_biases else position_biases(d_model, n_heads)
        self.layers = nn.ModuleList(
            self.layer_class(
                d_model,
                d_ff=ff_expansion_factor * d_model,
                self_attn=build_attention(
                    self_attention_model, d_model, n_heads, dropout_att, self.left_context(i), biases
                ),
                conv=ConvolutionModule(d_model, conv_kernel_size, conv_norm_type, causal=streaming),
                dropout=dropout,
                adaptive_scale=adaptive_scale,
            )
            for i in range(n_layers)
        )
        self.time_reduce_layer = TimeReduction(d_model) if self.reduced is not None else None
        self.time_recovery_layer = nn.Linear(d_model, d_model) if self.reduced is not None else None
        self.out_proj = nn.Linear(d_model, self.feat_out) if self.feat_out != d_model else None

    def forward(
        self, features: Tensor, lengths: Tensor | None = None, state: EncoderState | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, F, T) features and their lengths (B,) -> (B, D, ceil(T / subsampling_factor)), and their lengths.

        Without ``lengths`` all T frames are valid. With ``state`` (``init_state``), the features are the next chunk of
        a stream: whole chunks until the last, which may be shorter.
        """
        if lengths is None:
            lengths = torch.full((features.size(0),), features.size(2), device=features.device)
        # NeMo may wrap pre_encode in a module that takes (x, lengths) alone: hand on a state only where there is one.
        subsample = self.pre_encode if state is None else partial(self.pre_encode, state=state)
        x, lengths = subsample(
            features.transpose(1, 2), lengths.long()
        )  # (B, T, D), T at the encoder's rate from here on
        return self.encode(x, lengths, state)

    def encode(self, x: Tensor, lengths: Tensor, state: EncoderState | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) subsampled features -> (B, D, T)"""
        frames = self.frames(x, lengths, state)
        x, positions = self.pos_enc(x * self.xscale, frames)
        x = self.pre_ln(self.dropout(x))

        if self.reduced is None:
            x = self.run(range(len(self.layers)), x, frames, positions, state)
        else:
            x = self.run(range(self.reduced.start), x, frames, positions, state)
            x = x + self.temporal_unet(self.reduced, x, frames, state)
            x = self.run(range(self.reduced.stop, len(self.layers)), x, frames, positions, state)
        if self.out_proj is not None:
            x = self.out_proj(x)
        return x.transpose(1, 2), lengths

    def temporal_unet(self, indices: range, x: Tensor, frames: Frames, state: EncoderState | None) -> Tensor:
        """(B, T, D) -> (B, T, D) by way of (B, ceil(T / 2), D), with relative positions counted anew there."""
        branch, halved = self.time_reduce_layer(x, frames, state), frames.halved()
        _, positions = self.time_reduce_pos_enc(branch, halved)
        branch = self.run(indices, branch, halved, positions, state)
        return self.time_recovery_layer(upsample(branch, x.size(1)))

    def run(
        self, indices: Iterable[int], x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """(B, T, D) through the layers of ``indices``, all at one frame rate."""
        for i in indices:
            x = self.layers[i](x, frames, positions, state and state.layers[i])
        return x

    def frames(self, x: Tensor, lengths: Tensor, state: EncoderState | None) -> Frames:
        """Lengths and masks of (B, T, D) subsampled features."""
        cached = state.cached if state else 0
        if state:
            state.cached = min(cached + x.size(1), self.att_context_size[0])
        return Frames.of(lengths, x.size(1), self.att_context_size, chunked=self.streaming, cached=cached)

    def left_context(self, layer: int) -> int:
        """How many frames before its chunk ``layer`` attends to, at its own frame rate; -1 is unlimited."""
        left = self.att_context_size[0]
        return left // 2 if self.reduced is not None and layer in self.reduced else left

    def init_state(self, batch: int) -> EncoderState:
        """The state before the first chunk of ``batch`` streams, which go on in step.

        Raises:
            ValueError: if these settings cannot stream.
        """
        left, right = self.att_context_size
        if not self.streaming or not isinstance(self.pre_encode, StridingSubsampling):
            raise ValueError("only an encoder built with streaming=True and convolutional subsampling has a state")
        if min(left, right) < 0 or left % (right + 1) or (self.reduced is not None and right % 2 == 0):
            raise ValueError(
                f"cannot stream with att_context_size={self.att_context_size}: the left context must be a multiple of "
                "the chunk, right context + 1, and the chunk be even where there is a temporal U-Net"
            )
        zeros = self.pre_ln.weight.new_zeros
        return EncoderState(
            subsampling=self.pre_encode.init_state(batch),
            reduction=zeros(batch, self.d_model, TimeReduction.LEFT),
            layers=[
                LayerState(zeros(batch, 0, self.d_model), zeros(batch, 2 * self.d_model, layer.conv.left))
                for layer in cast(Iterable[SqueezeformerLayer], self.layers)
            ],
        )


def context(size: Sequence[int] | None) -> tuple[int, int]:
    left, right = size or (-1, -1)
    if min(left, right) < -1:
        raise ValueError(f"att_context_size={[left, right]}: frames to the left and right, -1 for unlimited")
    return left, right


def _reduced_layers(n_layers: int, reduce: int | None, recover: int | None) -> range | None:
    """The layers that run at half the frame rate; empty where the branch only reduces and recovers."""
    if reduce is None:
        return None
    recover = n_layers - 1 if recover is None else recover
    if not 0 <= reduce <= recover < n_layers:
        raise ValueError(
            f"time_reduce_idx={reduce}, time_recovery_idx={recover}: "
            f"expected 0 <= time_reduce_idx <= time_recovery_idx < n_layers={n_layers}"
        )
    return range(reduce, recover)
