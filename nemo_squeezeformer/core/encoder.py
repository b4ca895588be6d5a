"""The Squeezeformer encoder (Kim et al. 2022, arXiv 2206.00888)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .attention.selection import AttentionSettings
from .conformer import ConformerLayer
from .convolution import build_convolution
from .deep_norm import branch_weight, start_small
from .dispatch import dispatched
from .dropout import Dropout
from .frames.context import ContextSettings, streamed
from .frames.entrance import checked_features
from .frames.initial_state import initial_state
from .frames.margins import CAUSAL, STREAMED
from .frames.masks import Frames
from .frames.spans import Span, build_spans
from .frames.state import BEGUN, EncoderState
from .layer import SqueezeformerLayer
from .layer_call import layer_call
from .mf_cf import GatedMFCFLayer, MFCFLayer
from .settings.arguments import named_arguments, without_arguments
from .settings.ranges import check_ranges
from .stochastic_depth import drop_layer, drop_probabilities
from .subsampling import build_subsampling
from .temporal_unet import TimeReduction, refuse_reduction, upsample
from .variant import choose_variant

Self = TypeVar("Self", bound="SqueezeformerEncoder")


class SqueezeformerEncoder(nn.Module):
    """The Squeezeformer encoder: subsampling, then layers of attention, feed-forward and convolution modules.

    The layers in the middle run at half the frame rate. These layers form the temporal U-Net, a residual branch:
    ``x + recover(upsample(run(reduce(x))))``. The branch contains the layers from ``time_reduce_idx`` to
    ``time_recovery_idx - 1``. ``reduce`` is the reduction layer, and ``recover`` is the recovery layer.

    If ``time_reduce_idx`` and ``time_recovery_idx`` are lists, the encoder has several branches. Entry k of both lists
    describes the same branch. Branches can follow each other. A branch can also lie inside another branch (a nested
    U-Net). The layers of the inner branch run at a quarter of the frame rate.

    The names in the state dict are the names of NeMo 2.7.3's ``SqueezeformerEncoder``. NeMo's encoder has only one
    branch. The names of the reduction layer and the recovery layer of a second branch are ``time_reduce_layer_2`` and
    ``time_recovery_layer_2``. The names for further branches end with 3, 4 and so on.

    All arguments of NeMo 2.7.3's ``SqueezeformerEncoder`` are accepted with the same defaults, except the default of
    ``time_reduce_idx``, which is None in NeMo. All arguments of NeMo's ``ConformerEncoder`` are accepted with the same
    meaning. Two defaults differ from ``ConformerEncoder``, which has ``subsampling="striding"`` and
    ``dropout_pre_encoder=0.1``.

    Feature frames are the input frames, usually 10 ms. Encoder frames are the frames after the subsampling, usually
    40 ms. All sizes of ``att_context_size``, ``att_chunk_context_size`` and ``global_tokens_spacing`` count encoder
    frames, also for the layers inside the temporal U-Net. ``conv_kernel_size`` and ``conv_context_size`` count frames
    at the rate of each layer.

    Args:
        feat_in: Number of feature channels F, for example of mel bands.
        n_layers: Number of layers.
        d_model: Width D of the layers. D must be even.
        feat_out: Width of the output. -1 means ``d_model``, without an output projection.
        subsampling: Kind of the subsampling. ``dw_striding`` is depthwise-separable convolution, as in the paper;
            ``striding`` is Conformer's convolution; ``stacking`` concatenates neighboring frames; ``stacking_norm``
            normalizes neighboring frames, then concatenates these frames. None means a projection without subsampling.
        subsampling_factor: Number of feature frames for each encoder frame. 1 means no subsampling.
        subsampling_conv_channels: Channels of the subsampling convolutions. -1 means ``d_model``.
        ff_expansion_factor: Inner width of the feed-forward modules, as a multiple of ``d_model``.
        self_attention_model: ``rel_pos`` is attention with relative positions; ``abs_pos`` is attention with absolute
            positions; ``rel_pos_local_attn`` is ``rel_pos`` within the window of ``att_context_size``, computed in
            time and memory that grow linearly with the length; ``rope`` is attention with rotary positions
            (arXiv 2104.09864), which needs fewer operations than ``rel_pos`` and no position scores. The positions
            inside the temporal U-Net count the frames of the lower frame rate.
        n_heads: Number of attention heads H. H must divide ``d_model``.
        att_context_size: The number of frames [left, right] that a frame attends to on each side; -1 means
            unlimited. None means [-1, -1]. A list of sizes is possible: each training step draws one of the sizes, and
            evaluation uses the first size until ``set_default_att_context_size`` chooses another size. The meaning of a
            size depends on ``att_context_style``.
        xscaling: If True, multiply the subsampled features by sqrt(``d_model``).
        untie_biases: If True, each layer has its own position biases u and v. If False, all layers share u and v.
        pos_emb_max_len: Accepted for compatibility and unused: position encodings are computed for the actual length.
        conv_kernel_size: Kernel size of the depthwise convolution of each layer. The kernel size must be odd.
        conv_norm_type: Norm of the convolution module: ``batch_norm``, ``layer_norm``, ``instance_norm``,
            ``fused_batch_norm`` (an affine map without statistics) or ``group_normN`` with N groups. Instance norm and
            group norm include the padding in the statistics, so the output of an utterance depends on the other
            utterances of the batch.
        dropout: Dropout rate inside the feed-forward modules and of each residual branch.
        dropout_emb: Dropout rate of the relative position encodings outside the temporal U-Net.
        dropout_att: Dropout rate of the attention weights.
        adaptive_scale: If True, the scale and the bias before each module are learned. If False, the scale is 1 and the
            bias is 0.
        time_reduce_idx: Index of the first layer inside the temporal U-Net, or an ascending list with one index for
            each branch. None means no temporal U-Net. ``auto`` means ``(n_layers - 1) // 2``, as in the published
            sizes, or no temporal U-Net if the temporal U-Net would cut the chunks of ``att_context_size``.
        time_recovery_idx: Index of the first layer after the temporal U-Net, or a list as long as ``time_reduce_idx``.
            None means the last layer, for each branch.
        causal_downsampling: If True, the subsampling convolutions see no later frames, as in NeMo. Each convolution
            turns T frames into T // 2 + 1 frames instead of ceil(T / 2).
        subsampling_conv_chunking_factor: Number of parts of the batch that pass through the subsampling convolutions
            one after another, a power of 2. 1 and -1 mean the whole batch at once. This setting is not needed to save
            memory, because the convolutions always process the input in pieces of time.
        reduction: Reduction of NeMo's ``ConformerEncoder``. The temporal U-Net replaces this reduction, so the
            constructor raises ``ValueError`` if ``reduction`` is set and ``reduction_factor`` is above 1.
        reduction_position: See ``reduction``.
        reduction_factor: See ``reduction``.
        att_context_probs: Probability of each size of ``att_context_size`` in training. None means equal probabilities.
        att_chunk_context_size: Three lists for ``chunked_limited_with_rc``: left contexts, chunk sizes and right
            contexts. A chunk size of -1 means an unlimited context. Each training step draws a value from each list.
        att_context_style: Meaning of ``att_context_size``. None means ``regular``, or ``chunked_limited`` if
            ``streaming`` is True.

            - ``regular``: a size is [left, right], counted from the frame itself.
            - ``chunked_limited``: a size is [left, right], and a chunk has right + 1 frames. A frame attends to its
              whole chunk and to the left // (right + 1) chunks before this chunk.
            - ``chunked_limited_with_rc``: a size is [left, chunk, right]. A frame attends to its whole chunk, to left
              frames before the chunk and to right frames after the chunk. The default size is unlimited.

            In ``chunked_limited``, left must be a multiple of the chunk size. The temporal U-Net must not cut a chunk,
            so the chunk size must be a multiple of 2 frames. In ``chunked_limited_with_rc``, right must also be a
            multiple of 2 frames. With a branch inside another branch, these numbers must be multiples of 4 frames.
        conv_context_size: The number of frames [left, right] that the depthwise convolution sees on each side of a
            frame. left + right must be ``conv_kernel_size - 1``. ``causal`` means [``conv_kernel_size - 1``, 0]. None
            means an equal number of frames on both sides.
        conv_context_style: ``regular``, or ``dcc`` for dynamic chunk convolution: the convolution sees zeros in place
            of all frames after the attention chunk.
        use_bias: If True, the linear layers and convolutions inside the encoder layers have biases. The reduction layer
            and the recovery layer always have biases.
        dropout_pre_encoder: Dropout rate of the subsampled features. None means ``dropout``.
        global_tokens: Number of global tokens of ``rel_pos_local_attn``. A global token is a frame that attends to all
            frames and that all frames attend to.
        global_tokens_spacing: Distance between two global tokens. The first global token is frame 0.
        global_attn_separate: If True, global tokens have their own projections for queries, keys and values.
        use_pytorch_sdpa: NeMo's name for ``attention="sdpa"``.
        use_pytorch_sdpa_backends: Names of ``torch.nn.attention.SDPBackend`` that PyTorch may choose from. None means
            all backends.
        attention: How ``rel_pos``, ``abs_pos`` and ``rope`` are computed. All values give the same result.
            ``rel_pos_local_attn`` has one implementation, and does not use this setting or ``use_pytorch_sdpa``.

            - ``plain``: the reference implementation, with memory that grows with the square of T.
            - ``blocks``: blocks of queries, with memory that grows linearly with T. A recorded graph uses ``plain``.
            - ``sdpa``: PyTorch's fused kernels. Training of ``rel_pos`` in low precision computes attention in float32.
            - ``auto``: ``blocks`` for ``rel_pos``, and ``sdpa`` for ``abs_pos`` and ``rope``.

        sync_max_audio_length: Accepted for compatibility and unused: there are no tables of positions to synchronize.
        streaming: If True, the encoder can stream: with a streaming state, the outputs of ``forward`` for the chunks of
            an utterance equal the output for the whole utterance. The subsampling convolutions see no later frames, and
            each convolution turns T frames into ceil(T / 2) frames. The default of ``att_context_style`` becomes
            ``chunked_limited``. The default of ``conv_context_size`` becomes ``causal``, unless ``conv_context_style``
            is ``dcc``.
        block: Kind of the layers. ``squeezeformer`` is the layer of the paper. ``conformer`` is the layer of Conformer,
            with norms instead of scales and with a gated convolution. ``mf_cf_glu`` and ``mf_cf`` are two steps of the
            paper between these layers. ``mf_cf_glu`` has the modules in the order of Squeezeformer, with the norms and
            the gated convolution of Conformer. ``mf_cf`` is ``mf_cf_glu`` with Swish in place of the gate. ``block``
            does not change the temporal U-Net.
        stochastic_depth_drop_prob: Probability that a training step leaves out a layer. A layer that is not left out
            adds more to its input than without stochastic depth, as in NeMo's Conformer, so that the expected output
            does not change.
        stochastic_depth_mode: ``linear``: the probability grows from layer to layer up to
            ``stochastic_depth_drop_prob``. ``uniform``: all layers after ``stochastic_depth_start_layer`` have the
            probability ``stochastic_depth_drop_prob``.
        stochastic_depth_start_layer: Number of layers at the start that are never left out, at least 1.
        gradient_checkpointing: If True, training stores only the inputs of the layers. The backward pass computes the
            activations of the layers again. Training then needs less memory and more time. The gradients do not change.
        compile: If True, run the layers through ``torch.compile``. The first calls are slow. Exported graphs do not
            contain compiled layers.
        variant: ``nemo`` is the network of NeMo. ``original`` is the network of the authors' own checkpoints. In
            ``original``, the subsampling and the reduction layer see only the current frame and later frames. Unlimited
            zeros follow the features, and the subsampling does not mask intermediate results. Attention and
            convolutions often see one frame more than ``forward`` returns. The epsilon of norms is 1e-3, as in Keras.
            ``original`` does not stream.
        rope_base: Base of the frequencies of ``rope``. Only ``rope`` uses this setting.
        rotary_fraction: Fraction of each head that ``rope`` rotates, above 0 and at most 1. An odd number of rotated
            values is rounded down to an even number. NeMo refuses a fraction that gives an odd number. Only ``rope``
            uses this setting.
        use_triton: Accepted for compatibility and unused. NeMo's next release computes the subsampling ``dw_striding``
            on a GPU with Triton kernels. Here the subsampling always uses PyTorch's convolutions.
        deep_norm: If True, the output of each module has a smaller weight in the sum with the input of the module, and
            smaller initial weights (DeepNorm, arXiv 2203.00555). Training then learns faster, and also at higher
            learning rates. A checkpoint belongs to one value of this setting. The block ``conformer`` refuses True,
            because its sums have no LayerNorm.

    Raises:
        ValueError: A setting has a value that does not work. The message names the setting and the values that work.
        TypeError: An argument is unknown. The message names the argument and a similar argument.
    """

    blocks: Mapping[str, type[SqueezeformerLayer] | type[ConformerLayer]] = {
        "squeezeformer": SqueezeformerLayer,
        "conformer": ConformerLayer,
        "mf_cf_glu": GatedMFCFLayer,
        "mf_cf": MFCFLayer,
    }
    pre_encode: Any
    layers: Any  # a ModuleList of the layers; the class of the layers is in ``blocks``
    time_reduce_layer: Any  # None without a temporal U-Net
    time_recovery_layer: Any  # None without a temporal U-Net

    @named_arguments
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
        rope_base: float = 10000.0,
        rotary_fraction: float = 1.0,
        use_triton: bool | None = None,
        deep_norm: bool = False,
    ):
        check_ranges(locals())
        super().__init__()
        if d_model % 2:
            raise ValueError(f"d_model={d_model} must be even: position encodings are pairs of a sine and a cosine")
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
            self_attention_model,
            d_model,
            n_heads,
            dropout=dropout_att,
            untie_biases=untie_biases,
            use_bias=use_bias,
            form=attention,
            sdpa=backends,
            global_tokens=tokens,
            rope_base=rope_base,
            rotary_fraction=rotary_fraction,
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
        self.pos_enc, self.time_reduce_pos_enc = self.attention.build_positions(dropout_emb)
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
                branch_weight=branch_weight(n_layers) if deep_norm else 1.0,
            )
            for self_attn in self.attention.build(n_layers)
        )
        if deep_norm:
            start_small(self.layers)
        self.time_reduce_layer = self.time_recovery_layer = None
        for branch in self.span.all_branches():
            setattr(self, f"time_reduce_layer{branch.suffix}", TimeReduction(d_model, self.variant.reduction_left))
            setattr(self, f"time_recovery_layer{branch.suffix}", nn.Linear(d_model, d_model))
        self.out_proj = nn.Linear(d_model, self.feat_out) if self.feat_out != d_model else None

    @classmethod
    def unknown_arguments(cls, names: Sequence[str], known: Sequence[str]) -> str:
        """Return the text of the error for arguments ``names`` that are not in ``known``."""
        return f"{without_arguments(cls.__name__, names, known)} Correct the name, or remove the argument."

    def forward(
        self, features: Tensor, lengths: Tensor | None = None, state: EncoderState | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode features: (B, F, T) -> (B, D, ceil(T / subsampling_factor)).

        Args:
            features: Features (B, F, T) of whole utterances, or of the next chunk of a stream if ``state`` is given.
            lengths: Number of valid feature frames (B,). None means that all T frames are valid.
            state: Streaming state from ``init_state``. The call updates the state in place. Each call must contain one
                or more whole chunks of ``att_context_size``, except the last call of a stream, which may contain a
                shorter chunk.

        Returns:
            The encodings and the number of valid encoder frames (B,).

        Raises:
            ValueError: The batch is empty, the features have another number of channels, or a length does not fit. On a
                GPU, the values of the lengths are not checked.
        """
        x, valid = self.subsample(features, lengths, state)  # from here on T counts encoder frames
        seen = self.seen(features, lengths)
        x, valid = self.encode(x, valid, state, seen)
        t = (features.size(2) + self.subsampling_factor - 1) // self.subsampling_factor
        return x if seen is None else x[..., :t], valid

    def seen(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return the number of frames (B,) that are not masked, or None if exactly the valid frames are not masked."""
        margins = self.variant.margins
        if not margins.endless:
            return None
        if lengths is None:
            lengths = torch.full((features.size(0),), features.size(2), device=features.device)
        return margins.frames(lengths.long(), stages=self.subsampling_factor.bit_length() - 1)

    def subsample(
        self, features: Tensor, lengths: Tensor | None, state: EncoderState | None = None, absent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Subsample features: (B, F, T) -> (B, ceil(T / subsampling_factor), D).

        Args:
            features: Features (B, F, T).
            lengths: Number of valid feature frames (B,). None means that all T frames are valid.
            state: Streaming state, if the features are a chunk of a stream.
            absent: Number of leading feature frames (B,) before the start of the stream. The subsampling treats these
                frames as zero padding.

        Returns:
            The subsampled features and the number of valid encoder frames (B,).

        Raises:
            ValueError: The batch is empty, the features have another number of channels, or a length does not fit.
        """
        features = checked_features(features, self.feat_in)
        if lengths is None:
            lengths = torch.full((features.size(0),), features.size(2), device=features.device)
        # NeMo may wrap pre_encode in a module that accepts only (x, lengths), so None arguments are left out.
        given = {name: value for name, value in (("state", state), ("absent", absent)) if value is not None}
        return self.pre_encode(features.transpose(1, 2), lengths, **given)

    def encode(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the encodings of subsampled features, (B, T, D) -> (B, D, T), and ``lengths`` (B,) unchanged.

        ``seen`` (B,) is the number of frames that are not masked. None means that this number is ``lengths``.
        """
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
        """Run the layers of ``span``: (B, T, D) -> (B, T, D).

        Each branch of the temporal U-Net in ``span`` runs at half the frame rate. The output of the branch is added to
        the input of the branch.
        """
        at = span.start
        for branch in span.branches:
            x = self.run_layers(range(at, branch.start), x, frames, positions, state)
            x = x + self.temporal_unet(branch, x, frames, state)
            at = branch.stop
        return self.run_layers(range(at, span.stop), x, frames, positions, state)

    def temporal_unet(self, branch: Span, x: Tensor, frames: Frames, state: EncoderState | None) -> Tensor:
        """Run a branch of the temporal U-Net: (B, T, D) -> (B, ceil(T / 2), D) -> (B, T, D).

        The relative positions inside the branch count frames at half the frame rate.
        """
        reduce = getattr(self, f"time_reduce_layer{branch.suffix}")
        recover = getattr(self, f"time_recovery_layer{branch.suffix}")

        y, halved = reduce(x, frames, state and state.reductions[branch.number - 1]), frames.halved()
        _, positions = self.time_reduce_pos_enc(y, halved)
        y = self.run(branch, y, halved, positions, state)
        return recover(upsample(y, x.size(1)))

    def run_layers(
        self, indices: Iterable[int], x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """Run the layers with these ``indices``, which all run at the same frame rate: (B, T, D) -> (B, T, D)."""
        for i in indices:
            output = self.call_layer(self.layers[i], x, frames, positions, state.layers[i] if state else None)
            drop = self.training and self.layer_drop_probs[i] > 0.0
            x = drop_layer(output, x, self.layer_drop_probs[i]) if drop else output
        return x

    def frames(self, x: Tensor, lengths: Tensor, state: EncoderState | None, seen: Tensor | None = None) -> Frames:
        """Return the lengths and masks of subsampled features (B, T, D), and advance a ``state`` that is not None."""
        context, t = self.contexts.of(self.training), x.size(1)
        if state is None:
            return Frames.of(lengths, t, context) if seen is None else Frames.of(seen, t, context, valid=lengths)
        cached, advance = state.cached, state.frames(t)
        state.cached = (cached + advance).clamp(max=max(state.past, BEGUN))
        return Frames.of_stream(lengths, t, context, cached, state.past, advance)

    def set_default_att_context_size(self, att_context_size: Sequence[int] | None) -> None:
        """Set the ``att_context_size`` that the encoder uses in evaluation.

        The constructor sets the first size of the argument ``att_context_size`` of the encoder.

        Args:
            att_context_size: Size in the format of ``att_context_style``. None keeps the current size.

        Raises:
            ValueError: The size does not fit ``att_context_style``, or the temporal U-Net would cut the chunks.
        """
        if att_context_size is not None:
            self.contexts.check(att_context_size)
            self.attention.refuse_contexts(self.contexts, [att_context_size])
            self.contexts.default = list(att_context_size)

    def choose_reduction(self, n_layers: int, contexts: Callable[..., ContextSettings]) -> int | None:
        """Return ``time_reduce_idx`` as in the published sizes, or None if the U-Net would cut the attention chunks."""
        contexts(factor=1)
        try:
            contexts(factor=2)
        except ValueError:
            return None
        return (n_layers - 1) // 2

    @dispatched
    def optimize_for_inference(self: Self) -> Self:
        """Optimize this encoder in place for inference, and return this encoder.

        The outputs stay equal within rounding. The method sets evaluation mode and makes these changes:

        - Scales and batch norms are folded into the neighboring linear and convolution layers.
        - On a CPU on which oneDNN is faster than MKL, linear layers use oneDNN, which keeps a copy of the weights.
        - Position encodings are cached.

        Modules that are not plain, such as quantized layers and adapters, do not change. Copying, moving, tracing,
        exporting and streaming work as before. The streaming state contains other values than before this call, so
        begin each stream with a new state from ``init_state``. Training, ``state_dict`` and ``load_state_dict`` raise
        ``RuntimeError``. To undo the optimization, restore the model again.
        """
        return self.eval().requires_grad_(False)

    def init_state(self, batch: int) -> EncoderState:
        """Return the streaming state of ``batch`` new streams, before the first chunk.

        Raises:
            ValueError: The encoder cannot stream with its settings.
        """
        return initial_state(self, batch)
