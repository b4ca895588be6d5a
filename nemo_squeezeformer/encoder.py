"""The Squeezeformer encoder as NeMo's models, exporters and training mixins expect it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from nemo.core.classes.common import typecheck
from nemo.core.classes.exportable import Exportable
from nemo.core.classes.mixins import AccessMixin
from nemo.core.classes.module import NeuralModule
from nemo.core.neural_types import (
    AcousticEncodedRepresentation,
    BoolType,
    ChannelType,
    LengthsType,
    NeuralType,
    SpectrogramType,
)
from omegaconf import open_dict
from torch import Tensor

from nemo_squeezeformer import core
from nemo_squeezeformer.core.attention import build_attention, position_biases
from nemo_squeezeformer.core.frames import Frames
from nemo_squeezeformer.core.positions import build_positions
from nemo_squeezeformer.core.streaming import EncoderState
from nemo_squeezeformer.layer import SqueezeformerLayer


class SqueezeformerEncoder(core.SqueezeformerEncoder, NeuralModule, Exportable, AccessMixin):
    __doc__ = core.SqueezeformerEncoder.__doc__
    __module__ = "nemo_squeezeformer"  # the path that recipes give; NeMo's adapter registry compares the two

    layer_class = SqueezeformerLayer
    use_pad_mask = True
    export_cache_support = False

    @property
    def _feat_in(self) -> int:
        return self.feat_in

    @property
    def _feat_out(self) -> int:
        return self.feat_out

    @property
    def input_types(self) -> dict[str, NeuralType]:
        """Features, or with ``bypass_pre_encode`` subsampled ones (B, T, D); caches, as NeMo's encoders take them."""
        cache = NeuralType(("D", "B", "T", "D"), ChannelType(), optional=True)
        return OrderedDict(
            audio_signal=NeuralType(("B", "D", "T"), SpectrogramType()),
            length=NeuralType(("B",), LengthsType(), optional=True),
            cache_last_channel=cache,
            cache_last_time=cache,
            cache_last_channel_len=NeuralType(("B",), LengthsType(), optional=True),
            bypass_pre_encode=NeuralType((), BoolType(), optional=True),
        )

    @property
    def output_types(self) -> dict[str, NeuralType]:
        """Encodings (B, D, T) and their lengths (B,)."""
        return OrderedDict(
            outputs=NeuralType(("B", "D", "T"), AcousticEncodedRepresentation()),
            encoded_lengths=NeuralType(("B",), LengthsType()),
        )

    @property
    def input_types_for_export(self) -> dict[str, NeuralType]:
        """Features and lengths alone."""
        return OrderedDict(list(self.input_types.items())[:2])

    @typecheck()
    def forward(
        self,
        audio_signal: Tensor,
        length: Tensor | None = None,
        cache_last_channel: Tensor | None = None,
        cache_last_time: Tensor | None = None,
        cache_last_channel_len: Tensor | None = None,
        bypass_pre_encode: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(B, F, T) features and their lengths (B,) -> (B, D, ceil(T / subsampling_factor)), and their lengths.

        With ``bypass_pre_encode`` the input is (B, T, D), subsampled already. Without ``length`` all frames are valid.

        Raises:
            ValueError: if a cache is given; a stream's state goes through the core's ``forward``.
        """
        if cache_last_channel is not None or cache_last_time is not None:
            raise ValueError(
                "cache_last_channel and cache_last_time must be None: this encoder takes no caches of NeMo's"
            )
        if not bypass_pre_encode:
            return super().forward(audio_signal, length)
        if length is None:
            length = torch.full((audio_signal.size(0),), audio_signal.size(1), device=audio_signal.device)
        return self.encode(audio_signal, length.long())

    def forward_for_export(self, audio_signal: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``forward`` for NeMo's exporters, which call it by position."""
        return core.SqueezeformerEncoder.forward(self, audio_signal, length)

    def input_example(self, max_batch: int = 1, max_dim: int = 256) -> tuple[Tensor, Tensor]:
        """Random features (max_batch, F, max_dim), the first full-length, the others shorter by one frame each."""
        device = self.pre_ln.weight.device
        lengths = torch.arange(max_dim, max_dim - max_batch, -1, device=device).clamp(min=1)
        return torch.randn(max_batch, self.feat_in, max_dim, device=device), lengths

    def run(
        self, indices: Iterable[int], x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """(B, T, D) through the layers of ``indices``, each on record where NeMo wants it (InterCTC)."""
        for i in indices:
            x = super().run([i], x, frames, positions, state)
            if self.is_access_enabled(getattr(self, "model_guid", None)):
                self.capture(i, x, frames)
        return x

    def capture(self, layer: int, x: Tensor, frames: Frames) -> None:
        """Puts the output of ``layer`` and its lengths, at that layer's frame rate, on record if it was asked for."""
        if layer in self.access_cfg.get("interctc", {}).get("capture_layers", []):
            output = x if self.out_proj is None else self.out_proj(x)
            self.register_accessible_tensor(name=f"interctc/layer_output_{layer}", tensor=output.transpose(1, 2))
            self.register_accessible_tensor(name=f"interctc/layer_length_{layer}", tensor=frames.lengths)

    def frames(self, x: Tensor, lengths: Tensor, state: EncoderState | None) -> Frames:
        """Lengths and masks of (B, T, D) subsampled features."""
        frames = super().frames(x, lengths, state)
        return frames if self.use_pad_mask else frames.without_padding()

    def enable_pad_mask(self, on: bool = True) -> bool:
        """Whether convolutions take padding for zeros; off is for batches without padding. Returns what it was."""
        was, self.use_pad_mask = self.use_pad_mask, on
        return was

    def change_attention_model(
        self,
        self_attention_model: str | None = None,
        att_context_size: Sequence[int] | None = None,
        update_config: bool = True,
        device: torch.device | None = None,
    ) -> None:
        """Switch between ``rel_pos`` and ``abs_pos``, or to another context, with every weight that both have kept.

        Raises:
            ValueError: for an attention model that there is none of; the encoder is then as it was.
        """
        model = self_attention_model or self.layers[0].self_attention_model
        if att_context_size is not None:
            self.att_context_size = core.encoder.context(att_context_size)
        biases = None if self.untie_biases else position_biases(self.d_model, self.layers[0].self_attn.n_heads)
        for i, layer in enumerate(self.layers):
            old = layer.self_attn
            new = build_attention(model, self.d_model, old.n_heads, old.dropout.p, self.left_context(i), biases)
            new.load_state_dict(old.state_dict(), strict=False)
            layer.self_attn = new.to(device or old.linear_q.weight.device, old.linear_q.weight.dtype)
        self.pos_enc, self.time_reduce_pos_enc = build_positions(model, self.dropout_emb)
        if update_config and getattr(self, "_cfg", None) is not None:
            with open_dict(self._cfg):
                self._cfg.self_attention_model = model
                self._cfg.att_context_size = list(self.att_context_size)

    def change_subsampling_conv_chunking_factor(self, subsampling_conv_chunking_factor: int) -> None:
        """Send the batch through the subsampling convolutions in so many parts, to save memory; 1 or -1: at once.

        Raises:
            ValueError: for anything but -1, 1 or a power of 2.
        """
        factor = subsampling_conv_chunking_factor
        if factor != -1 and (factor < 1 or factor & (factor - 1)):
            raise ValueError(f"subsampling_conv_chunking_factor={factor} must be -1, 1 or a power of 2")
        self.pre_encode.batch_chunks = max(factor, 1)
