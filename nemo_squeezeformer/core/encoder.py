"""The Squeezeformer encoder (Kim et al. 2022, arXiv 2206.00888)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .attention.positions import build_positions
from .attention.selection import AttentionSettings
from .conformer import ConformerLayer
from .convolution import build_convolution
from .dispatch import dispatched
from .dropout import Dropout
from .frames.context import ContextSettings, streamed
from .frames.initial_state import initial_state
from .frames.margins import CAUSAL, STREAMED
from .frames.masks import Frames
from .frames.spans import Span, build_spans
from .frames.state import BEGUN, EncoderState
from .layer import SqueezeformerLayer
from .layer_call import layer_call
from .mf_cf import GatedMFCFLayer, MFCFLayer
from .stochastic_depth import drop_layer, drop_probabilities
from .subsampling import build_subsampling
from .temporal_unet import TimeReduction, refuse_reduction, upsample
from .variant import choose_variant

Self = TypeVar("Self", bound="SqueezeformerEncoder")


class SqueezeformerEncoder(nn.Module):
    """Subsampling, then layers of attention, feed-forward and convolution, the middle ones at half the frame rate.

    The temporal U-Net is a residual branch: ``x + recover(upsample(run(reduce(x))))``. Inside it run the layers from
    ``time_reduce_idx`` to the one before ``time_recovery_idx``. Two lists make several branches, one inside another,
    at a quarter of the frame rate and so on, or one after another: entry k of one list belongs to entry k of the other.
    The names in the state dict are NeMo 2.7.3's, and so are arguments and defaults, but for ``time_reduce_idx``, which
    was None; ends of a second branch are ``time_reduce_layer_2`` and ``time_recovery_layer_2``, and so on. Arguments of
    NeMo's ConformerEncoder are here too, each with its meaning; only the default of ``subsampling`` is another.

    Args:
        feat_in: feature channels F, for instance mel bins.
        n_layers: number of layers.
        d_model: width D; even.
        feat_out: width of the output; -1 for ``d_model``.
        subsampling: ``dw_striding`` (the paper's), ``striding`` (Conformer's), ``stacking``, ``stacking_norm`` or None.
        subsampling_factor: how many feature frames make an encoder frame; 1 for none.
        subsampling_conv_channels: channels of the subsampling convolutions; -1 for ``d_model``.
        ff_expansion_factor: inner width of the feed-forward modules, in units of ``d_model``.
        self_attention_model: ``rel_pos``, ``abs_pos``, or ``rel_pos_local_attn``: ``rel_pos`` over the window of
            ``att_context_size``, in linear time and memory.
        n_heads: attention heads H; divides ``d_model``.
        att_context_size: (left, right) frames, at the rate before the U-Net, that attention reaches; -1 is unlimited.
            Of several pairs training draws one a step, evaluation uses the first (``set_default_att_context_size``).
        xscaling: multiply the subsampled features by sqrt(``d_model``).
        untie_biases: each layer has its own position biases u and v.
        pos_emb_max_len, sync_max_audio_length: accepted; positions are computed for the length at hand.
        conv_kernel_size: frames that the depthwise convolution of a layer sees; odd.
        conv_norm_type: ``batch_norm``, ``layer_norm``, ``instance_norm``, ``fused_batch_norm`` or ``group_normN``.
            Instance and group norm take their statistics over padding too, so they depend on the batch.
        dropout: of every branch.
        dropout_emb: of the relative position encodings outside the U-Net.
        dropout_att: of the attention weights.
        adaptive_scale: learn the scaling in front of each module, or leave it at the identity.
        time_reduce_idx: the first layer at half the frame rate, or an ascending list for several branches; ``auto`` for
            (n_layers - 1) // 2, as in the published sizes, unless it cut chunks; None for no temporal U-Net.
        time_recovery_idx: the first layer at the full rate again, or a list as long as the other; None for the last.
        causal_downsampling: see nothing ahead, and as NeMo's make T // 2 + 1 frames of T, not ceil(T / 2).
        subsampling_conv_chunking_factor: how many parts of a batch go through the subsampling convolutions in turn, a
            power of 2; -1 and 1 for one. To save memory it need not be set, as they go in pieces of time anyway.
        reduction, reduction_position, reduction_factor: the U-Net's part here; refused unless off (None, or factor 1).
        att_context_probs: how likely training draws each of several ``att_context_size``; None for alike.
        att_chunk_context_size: lists of left contexts, chunks (-1: no limits) and right contexts for
            ``chunked_limited_with_rc``; training draws one of each a step.
        att_context_style: ``regular``, the default: ``att_context_size`` counts from the frame. ``chunked_limited``:
            frames see whole chunks of right + 1 frames, their own and left // (right + 1) before it.
            ``chunked_limited_with_rc``: a size is [left, chunk, right], and left and right count from the chunk;
            evaluation is unlimited by default. Chunks must be multiples of 2, which the U-Net does not cut, or of 4
            where it halves twice.
        conv_context_size: frames (left, right) that the depthwise convolution sees besides its own, ``causal`` for
            (kernel - 1, 0); None for the middle.
        conv_context_style: ``regular``, or ``dcc``: convolutions see zeros after the chunk of attention.
        use_bias: in all linear and convolution layers of the layers, but not those of the U-Net's ends.
        dropout_pre_encoder: of the subsampled features; None for ``dropout``.
        global_tokens: so many frames of ``rel_pos_local_attn`` see all and are seen by all, ``global_tokens_spacing``
            frames apart at the rate before the U-Net, with projections of their own if ``global_attn_separate``.
        attention: how ``rel_pos`` and ``abs_pos`` are computed, to the same result: ``plain``, as the equation is
            written; ``blocks``, queries in blocks, in memory that grows with T and not with its square; ``sdpa``, by
            PyTorch's fused kernels; ``auto``: ``blocks``, but ``plain`` in graphs and in training on a GPU.
        use_pytorch_sdpa: NeMo's name for ``attention="sdpa"``; ``use_pytorch_sdpa_backends`` are names of
            ``torch.nn.attention.SDPBackend`` that it may choose from; None for all.
        streaming: causal subsampling with ceil(T / 2) frames and, unless given, ``conv_context_size="causal"`` and
            ``chunked_limited``, so that ``forward`` with a state gives chunk by chunk what it gives for the whole.
        block: ``squeezeformer``, or ``conformer`` for Conformer's layers, which have norms in the place of scales and a
            gated convolution; around them the temporal U-Net stays. The paper's steps between the two are
            ``mf_cf_glu``, Squeezeformer's order of modules with those norms and that convolution, and ``mf_cf``, with
            Swish in its place.
        stochastic_depth_drop_prob: how likely training leaves out a layer; the others are scaled up, as in Conformer.
        stochastic_depth_mode: ``linear``, the probability grows with depth to this, or ``uniform``.
        stochastic_depth_start_layer: so many layers, 1 or more, are never left out.
        gradient_checkpointing: in training, keep only the inputs of the layers and compute what is inside them again on
            the way back: less memory, the same gradients, more time.
        compile: run the layers through ``torch.compile``, which takes a while at first. Not when exporting.
        variant: ``nemo``, or ``original``, the network of the authors' own checkpoints: subsampling and time reduction
            look ahead only, into zeros without end after the features; attention and convolutions mostly see a frame
            more than is output; norms have Keras' eps, 1e-3. It does not stream.

    Raises:
        ValueError: names the setting that is wrong, and what it may be.
    """

    blocks: Mapping[str, type[SqueezeformerLayer] | type[ConformerLayer]] = {
        "squeezeformer": SqueezeformerLayer,
        "conformer": ConformerLayer,
        "mf_cf_glu": GatedMFCFLayer,
        "mf_cf": MFCFLayer,
    }
    pre_encode: Any
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
        att_context_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
        xscaling: bool = True,
        untie_biases: bool = True,
        pos_emb_max_len: int = 5000,
        conv_kernel_size: int = 31,
        conv_norm_type: str = "batch_norm",
        dropout: float = 0.1,
        dropout_emb: float = 0.1,
        dropout_att: float = 0.0,
        adaptive_scale: bool = True,
        time_reduce_idx: int | Sequence[int] | str | None = "auto",
        time_recovery_idx: int | Sequence[int] | None = None,
        *,
        causal_downsampling: bool = False,
        subsampling_conv_chunking_factor: int = 1,
        reduction: str | None = None,
        reduction_position: int | None = None,
        reduction_factor: int = 1,
        att_context_probs: Sequence[float] | None = None,
        att_chunk_context_size: Sequence[Sequence[int]] | None = None,
        att_context_style: str | None = None,
        conv_context_size: str | Sequence[int] | None = None,
        conv_context_style: str = "regular",
        use_bias: bool = True,
        dropout_pre_encoder: float | None = None,
        global_tokens: int = 0,
        global_tokens_spacing: int = 1,
        global_attn_separate: bool = False,
        use_pytorch_sdpa: bool = False,
        use_pytorch_sdpa_backends: Sequence[str] | None = None,
        attention: str = "auto",
        sync_max_audio_length: bool = True,
        streaming: bool = False,
        block: str = "squeezeformer",
        stochastic_depth_drop_prob: float = 0.0,
        stochastic_depth_mode: str = "linear",
        stochastic_depth_start_layer: int = 1,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        variant: str = "nemo",
    ):
        super().__init__()
        if d_model % 2:
            raise ValueError(f"d_model={d_model} must be even: position encodings pair sines with cosines")
        self.feat_in, self.d_model, self.conv_norm_type = feat_in, d_model, conv_norm_type
        self.feat_out = d_model if feat_out == -1 else feat_out
        refuse_reduction(reduction, reduction_position, reduction_factor)
        self.variant = choose_variant(
            variant, subsampling, subsampling_factor, streaming=streaming, causal_downsampling=causal_downsampling
        )
        if streaming:
            att_context_style, conv_context_size = streamed(
                causal_downsampling, att_context_style, conv_context_style, conv_context_size
            )
        style = att_context_style or "regular"
        contexts = partial(ContextSettings, att_context_size, att_context_probs, style, att_chunk_context_size)
        if time_reduce_idx == "auto":
            time_reduce_idx = self.choose_reduction(n_layers, contexts)
        self.span = build_spans(n_layers, time_reduce_idx, time_recovery_idx)
        self.contexts = contexts(factor=2 ** self.span.depth())
        backends = tuple(use_pytorch_sdpa_backends or ()) if use_pytorch_sdpa else None
        tokens = (global_tokens, global_tokens_spacing, global_attn_separate)
        self.attention = AttentionSettings(
            self_attention_model, d_model, n_heads, dropout_att, untie_biases, use_bias, attention, backends, tokens
        )
        self.attention.refuse_contexts(self.contexts, self.contexts.sizes)
        if block not in self.blocks:
            raise ValueError(f"block={block!r}: expected one of {', '.join(map(repr, self.blocks))}")
        self.call_layer = layer_call(gradient_checkpointing, compile)
        self.layer_drop_probs = drop_probabilities(
            n_layers, stochastic_depth_drop_prob, stochastic_depth_mode, stochastic_depth_start_layer
        )
        self.subsampling_factor = subsampling_factor if subsampling else 1
        self.xscale = math.sqrt(d_model) if xscaling else 1.0

        channels = d_model if subsampling_conv_channels == -1 else subsampling_conv_channels
        margins = STREAMED if streaming else CAUSAL if causal_downsampling else self.variant.margins
        self.pre_encode = build_subsampling(subsampling, feat_in, d_model, subsampling_factor, channels, margins)
        self.pre_encode.split_batch(subsampling_conv_chunking_factor)
        self.dropout_emb = dropout_emb
        self.pos_enc, self.time_reduce_pos_enc = build_positions(self_attention_model, dropout_emb)
        self.dropout = Dropout(dropout if dropout_pre_encoder is None else dropout_pre_encoder)
        layer = self.blocks[block]
        eps, momentum = self.variant.eps, self.variant.momentum
        self.pre_ln = nn.Identity() if layer.pre_norm else nn.LayerNorm(d_model, eps)

        convolution = build_convolution(conv_context_style, self.contexts)
        self.layers = nn.ModuleList(
            layer(
                d_model,
                d_ff=ff_expansion_factor * d_model,
                self_attn=self_attn,
                conv=convolution(
                    d_model, conv_kernel_size, conv_norm_type, conv_context_size, use_bias, layer.gated, eps, momentum
                ),
                dropout=dropout,
                adaptive_scale=adaptive_scale,
                use_bias=use_bias,
                eps=eps,
            )
            for self_attn in self.attention.build(n_layers)
        )
        self.time_reduce_layer = self.time_recovery_layer = None
        for branch in self.span.all_branches():
            setattr(self, f"time_reduce_layer{branch.suffix}", TimeReduction(d_model, self.variant.reduction_left))
            setattr(self, f"time_recovery_layer{branch.suffix}", nn.Linear(d_model, d_model))
        self.out_proj = nn.Linear(d_model, self.feat_out) if self.feat_out != d_model else None

    def forward(
        self, features: Tensor, lengths: Tensor | None = None, state: EncoderState | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, F, T) features and their lengths (B,) -> (B, D, ceil(T / subsampling_factor)), and their lengths.

        Without ``lengths`` all T frames are valid. With ``state`` (``init_state``), the features are the next chunk of
        a stream: whole chunks until the last, which may be shorter.
        """
        x, valid = self.subsample(features, lengths, state)  # T is at the encoder's rate from here on
        seen = self.seen(features, lengths)
        x, valid = self.encode(x, valid, state, seen)
        t = (features.size(2) + self.subsampling_factor - 1) // self.subsampling_factor
        return x if seen is None else x[..., :t], valid

    def seen(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(B,) how many frames masks let in; None where it is as many as are valid."""
        margins = self.variant.margins
        if not margins.endless:
            return None
        if lengths is None:
            lengths = torch.full((features.size(0),), features.size(2), device=features.device)
        return margins.frames(lengths.long(), stages=self.subsampling_factor.bit_length() - 1)

    def subsample(
        self, features: Tensor, lengths: Tensor | None, state: EncoderState | None = None, absent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, F, T) features -> (B, ceil(T / subsampling_factor), D), and lengths (B,)

        ``absent`` (B,): number of leading feature frames before the start of a stream; treated as zero padding.
        """
        if lengths is None:
            lengths = torch.full((features.size(0),), features.size(2), device=features.device)
        # NeMo may wrap pre_encode in a module that takes (x, lengths) alone: hand on only what there is.
        given = {name: value for name, value in (("state", state), ("absent", absent)) if value is not None}
        return self.pre_encode(features.transpose(1, 2), lengths.long(), **given)

    def encode(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) subsampled features -> (B, D, T); masks let in ``seen`` (B,) frames, None for ``lengths``."""
        frames = self.frames(x, lengths, state, seen)
        x, positions = self.pos_enc(x * self.xscale, frames)
        x = self.pre_ln(self.dropout(x))
        x = self.run(self.span, x, frames, positions, state)
        if self.out_proj is not None:
            x = self.out_proj(x)
        return x.transpose(1, 2), lengths

    def run(
        self, span: Span, x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """(B, T, D) through the layers of ``span``; each of its branches adds what it finds at half the frame rate."""
        at = span.start
        for branch in span.branches:
            x = self.run_layers(range(at, branch.start), x, frames, positions, state)
            x = x + self.temporal_unet(branch, x, frames, state)
            at = branch.stop
        return self.run_layers(range(at, span.stop), x, frames, positions, state)

    def temporal_unet(self, branch: Span, x: Tensor, frames: Frames, state: EncoderState | None) -> Tensor:
        """(B, T, D) -> (B, T, D) by way of (B, ceil(T / 2), D), with relative positions counted anew there."""
        reduce = getattr(self, f"time_reduce_layer{branch.suffix}")
        recover = getattr(self, f"time_recovery_layer{branch.suffix}")

        y, halved = reduce(x, frames, state and state.reductions[branch.number - 1]), frames.halved()
        _, positions = self.time_reduce_pos_enc(y, halved)
        y = self.run(branch, y, halved, positions, state)
        return recover(upsample(y, x.size(1)))

    def run_layers(
        self, indices: Iterable[int], x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """(B, T, D) through the layers of ``indices``, all at one frame rate."""
        for i in indices:
            output = self.call_layer(self.layers[i], x, frames, positions, state.layers[i] if state else None)
            drop = self.training and self.layer_drop_probs[i] > 0.0
            x = drop_layer(output, x, self.layer_drop_probs[i]) if drop else output
        return x

    def frames(self, x: Tensor, lengths: Tensor, state: EncoderState | None, seen: Tensor | None = None) -> Frames:
        """Lengths and masks of (B, T, D) subsampled features."""
        context, t = self.contexts.of(self.training), x.size(1)
        if state is None:
            return Frames.of(lengths, t, context) if seen is None else Frames.of(seen, t, context, valid=lengths)
        cached, advance = state.cached, state.frames(t)
        state.cached = (cached + advance).clamp(max=max(state.past, BEGUN))
        return Frames.of_stream(lengths, t, context, cached, state.past, advance)

    def set_default_att_context_size(self, att_context_size: Sequence[int] | None) -> None:
        """Choose the size for evaluation, which is the first of ``att_context_size`` else; None keeps what it is.

        Raises:
            ValueError: for a size that ``att_context_style`` or the temporal U-Net cannot have.
        """
        if att_context_size is not None:
            self.contexts.check(att_context_size)
            self.attention.refuse_contexts(self.contexts, [att_context_size])
            self.contexts.default = list(att_context_size)

    def choose_reduction(self, n_layers: int, contexts: Callable[..., ContextSettings]) -> int | None:
        """The ``time_reduce_idx`` of the published sizes; None where it would cut the chunks that attention sees."""
        contexts(factor=1)
        try:
            contexts(factor=2)
        except ValueError:
            return None
        return (n_layers - 1) // 2

    @dispatched
    def optimize_for_inference(self: Self) -> Self:
        """This encoder itself, from now on for inference alone: faster, equal within rounding, and no checkpoint's.

        It goes to evaluation mode. Scales and batch norms are folded into the products beside them, products on a CPU
        go through the faster of PyTorch's libraries, which takes a copy of the weights, and position encodings are
        kept. What is not plain (quantised layers, adapters) stays what it is. To copy, move, trace, export and stream
        works as ever; of another memory, so begin streams anew. It trains no more, and ``state_dict`` and
        ``load_state_dict`` raise RuntimeError: restore the model again for what it was.
        """
        return self.eval().requires_grad_(False)

    def init_state(self, batch: int) -> EncoderState:
        """The state before the first chunk of ``batch`` streams; ValueError if these settings cannot stream."""
        return initial_state(self, batch)
