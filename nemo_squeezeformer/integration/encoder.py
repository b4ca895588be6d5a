"""The Squeezeformer encoder with the interfaces that NeMo's models, exporters and training mixins expect."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from nemo.core.classes.common import typecheck
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
from nemo.utils import logging, logging_mode
from omegaconf import open_dict
from torch import Tensor

from nemo_squeezeformer import core
from nemo_squeezeformer.core.attention import position_weights
from nemo_squeezeformer.core.frames.context import ContextSettings
from nemo_squeezeformer.core.frames.entrance import checked_lengths, recordable, refuse_empty
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.frames.state import EncoderState
from nemo_squeezeformer.core.inference import refuse
from nemo_squeezeformer.core.settings.arguments import without_arguments
from nemo_squeezeformer.integration import nemo_versions
from nemo_squeezeformer.integration.exportable import Exported
from nemo_squeezeformer.integration.layer import ConformerLayer, GatedMFCFLayer, MFCFLayer, SqueezeformerLayer
from nemo_squeezeformer.integration.streaming import Streaming, all_or_none

CACHE = NeuralType(("D", "B", "T", "D"), ChannelType(), optional=True)
FREEZING = threading.Lock()  # shared by all encoders, because copies and pickles cannot contain a lock


class SqueezeformerEncoder(core.SqueezeformerEncoder, Streaming, Exported, NeuralModule, AccessMixin):
    __doc__ = core.SqueezeformerEncoder.__doc__
    __module__ = "nemo_squeezeformer"  # NeMo's adapter registry compares the class path with the path in recipes

    blocks = {
        "squeezeformer": SqueezeformerLayer,
        "conformer": ConformerLayer,
        "mf_cf_glu": GatedMFCFLayer,
        "mf_cf": MFCFLayer,
    }
    use_pad_mask = True
    _freezing_threads: tuple[int, ...] = ()

    @classmethod
    def unknown_arguments(cls, names: Sequence[str], known: Sequence[str]) -> str:
        """Return the text of the error for arguments ``names`` that are not in ``known``, with the versions of NeMo."""
        what, versions = without_arguments(cls.__name__, names, known), nemo_versions.known_arguments()
        return f"{what} {versions} Remove the argument, or upgrade nemo_squeezeformer."

    def choose_reduction(self, n_layers: int, contexts: Callable[..., ContextSettings]) -> int | None:
        """Return the layer that ``time_reduce_idx="auto"`` selects.

        The method logs the choice once, because the choice defines the network.
        """
        chosen = super().choose_reduction(n_layers, contexts)
        if chosen is None:
            meaning = (
                "the encoder has no temporal U-Net, because a temporal U-Net would cut the chunks of att_context_size; "
                "for a temporal U-Net, set chunks with an even number of frames"
            )
        else:
            meaning = (
                f"{chosen}, the first layer at half the frame rate in an encoder of {n_layers} layers, as in the "
                "published sizes; for an encoder without a temporal U-Net, set time_reduce_idx=null"
            )
        logging.info(f"time_reduce_idx=auto: {meaning}", mode=logging_mode.ONCE)
        return chosen

    @property
    def _feat_in(self) -> int:
        return self.feat_in

    @property
    def _feat_out(self) -> int:
        return self.feat_out

    @property
    def input_types(self) -> dict[str, NeuralType]:
        """The neural types of the inputs: features and caches, as in NeMo's encoders.

        With ``bypass_pre_encode``, ``audio_signal`` is subsampled features (B, T, D).
        """
        return OrderedDict(
            audio_signal=NeuralType(("B", "D", "T"), SpectrogramType()),
            length=NeuralType(("B",), LengthsType(), optional=True),
            cache_last_channel=CACHE,
            cache_last_time=CACHE,
            cache_last_channel_len=NeuralType(("B",), LengthsType(), optional=True),
            bypass_pre_encode=NeuralType((), BoolType(), optional=True),
        )

    @property
    def output_types(self) -> dict[str, NeuralType]:
        """The neural types of the outputs: encodings (B, D, T) and lengths (B,).

        If the inputs contain caches, the outputs also contain the caches for the next chunk.
        """
        return OrderedDict(
            outputs=NeuralType(("B", "D", "T"), AcousticEncodedRepresentation()),
            encoded_lengths=NeuralType(("B",), LengthsType()),
            cache_last_channel_next=CACHE,
            cache_last_time_next=CACHE,
            cache_last_channel_next_len=NeuralType(("B",), LengthsType(), optional=True),
        )

    @typecheck()
    def forward(
        self,
        audio_signal: Tensor,
        length: Tensor | None = None,
        cache_last_channel: Tensor | None = None,
        cache_last_time: Tensor | None = None,
        cache_last_channel_len: Tensor | None = None,
        bypass_pre_encode: bool = False,
    ) -> tuple[Tensor, ...]:
        """Encode features: (B, F, T) and lengths (B,) -> (B, D, ceil(T / subsampling_factor)) and lengths (B,).

        If ``bypass_pre_encode`` is True, the input is subsampled features (B, T, D). Without ``length``, all frames are
        valid. With caches (``get_initial_cache_state``), the input is the next chunk of each stream, and the method
        also returns the caches for the following chunk. ``streaming_cfg`` gives the length of a chunk and the number of
        feature frames to prepend to each chunk.

        Raises:
            ValueError: the caches are from another encoder or another ``att_context_size``, the batch is empty, or a
                length does not fit the batch.
        """
        caches = all_or_none(cache_last_channel, cache_last_time, cache_last_channel_len, audio_signal.size(0))
        if bypass_pre_encode:
            refuse_empty(audio_signal, dim=1, what="encoder frames")
            lengths = checked_lengths(audio_signal, length, dim=1, what="encoder frames")
            x = recordable(audio_signal)
        elif caches is not None:
            x, lengths = self.subsample(audio_signal, length, absent=self.absent(caches))
        if caches is not None:
            return self.stream(x, lengths, caches, before_chunk=not bypass_pre_encode)
        x, lengths = self.encode(x, lengths) if bypass_pre_encode else super().forward(audio_signal, length)
        if self.is_access_enabled(getattr(self, "model_guid", None)):
            self.align_records(x.size(2), lengths)
        return x, lengths

    def run_layers(
        self, indices: Iterable[int], x: Tensor, frames: Frames, positions: Tensor | None, state: EncoderState | None
    ) -> Tensor:
        """Run the layers ``indices``: (B, T, D) -> (B, T, D).

        If a NeMo model requests the outputs of layers, the method also records the output of each layer.
        """
        for i in indices:
            x = super().run_layers([i], x, frames, positions, state)
            if self.is_access_enabled(getattr(self, "model_guid", None)):
                self.capture(i, x, frames)
        return x

    def capture(self, layer: int, x: Tensor, frames: Frames) -> None:
        """Record the output of ``layer`` and the lengths of this output, if a NeMo model requests this output.

        The recorded output and the recorded lengths have the frame rate of the layer.
        """
        if self.access_cfg.get("save_encoder_tensors"):
            self.layers[layer].register_accessible_tensor(name="encoder", tensor=x)
        if layer in self.access_cfg.get("interctc", {}).get("capture_layers", []):
            output = x if self.out_proj is None else self.out_proj(x)
            self.register_accessible_tensor(name=f"interctc/layer_output_{layer}", tensor=output.transpose(1, 2))
            lengths = frames.lengths if frames.valid is None else frames.valid
            self.register_accessible_tensor(name=f"interctc/layer_length_{layer}", tensor=lengths)

    def align_records(self, t: int, lengths: Tensor) -> None:
        """Give the recorded outputs of all layers ``t`` frames.

        The method repeats the frames of layers inside the temporal U-Net. The layers of ``variant="original"`` can
        process one frame more than the encoder returns. The method removes this frame.

        Self-supervised losses compare the frames of a layer with the lengths of the encoder. Feature extractors stack
        the outputs of several layers. InterCTC decodes each layer separately and needs the frame rate and the lengths
        of the layer. Feature extractors and InterCTC record under equal names, but only a request of a feature
        extractor sets ``detach`` and ``convert_to_cpu``.
        """
        records = self.get_module_registry(self)
        for name, record in records.items():
            if "encoder" in record:
                record["encoder"][-1] = self.at_full_rate(record["encoder"][-1], t, int(name.rsplit(".")[-1]), dim=1)
        if "detach" not in self.access_cfg:
            return
        record = records.get("", {})
        for name, outputs in record.items():
            if name.startswith("interctc/layer_output_"):
                shorter = record[name.replace("output", "length")]
                outputs[-1] = self.at_full_rate(outputs[-1], t, int(name.rsplit("_")[-1]), dim=2)
                shorter[-1] = lengths.to(shorter[-1].device)

    def at_full_rate(self, x: Tensor, t: int, layer: int, dim: int) -> Tensor:
        """Return the output of ``layer`` with ``t`` frames along ``dim``.

        The method repeats frames in the same way as the recovery layer of the temporal U-Net.
        """
        step = 2 ** self.span.depth(layer)
        return x if x.size(dim) == t and step == 1 else x.index_select(dim, torch.arange(t, device=x.device) // step)

    def freeze(self) -> None:
        """Switch to evaluation mode and disable the gradients of all parameters.

        The method records which parameters had gradients, for ``unfreeze(partial=True)``. NeMo's ``transcribe`` freezes
        the encoder at the start. If several threads freeze the encoder at the same time, only the first call records
        the parameters, and the encoder stays frozen until the last partial unfreeze.
        """
        with FREEZING:
            thread, others = threading.get_ident(), self._other_freezing_threads()
            self._freezing_threads = (*others, thread)
            if others:
                self.eval()
                return
            if not hasattr(self, "_frozen_grad_map"):
                self._trained_before_freeze = self.training
            super().freeze()

    def unfreeze(self, partial: bool = False) -> None:
        """Enable the gradients of all parameters and switch to training mode.

        If ``partial`` is True, enable only the gradients that were enabled before ``freeze``. In this case the encoder
        stays in evaluation mode if the encoder was in evaluation mode before ``freeze`` and is in evaluation mode now.
        NeMo's ``transcribe`` ends with a partial unfreeze. Without this rule, dropout and batch norms would then be in
        training mode. A partial unfreeze does not change an encoder that another thread has frozen.
        """
        with FREEZING:
            self._freezing_threads = self._other_freezing_threads() if partial else ()
            if self._freezing_threads:
                return
            train = self.training or not partial or getattr(self, "_trained_before_freeze", True)
            if train or not hasattr(self, "_frozen_grad_map"):
                super().unfreeze(partial=partial)
                self.train(train)
                return
            # NeMo's method switches all layers to training mode for a moment, and another thread can use the layers.
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(self._frozen_grad_map.get(name, True))
            del self._frozen_grad_map

    def _other_freezing_threads(self) -> tuple[int, ...]:
        """Return the running threads, without this thread, that have frozen the encoder and not unfrozen it."""
        running = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return tuple(thread for thread in self._freezing_threads if thread in running)

    def frames(self, x: Tensor, lengths: Tensor, state: EncoderState | None, seen: Tensor | None = None) -> Frames:
        """Return the lengths and masks of subsampled features (B, T, D)."""
        frames = super().frames(x, lengths, state, seen)
        return frames if self.use_pad_mask else frames.without_padding()

    def enable_pad_mask(self, on: bool = True) -> bool:
        """Set whether convolutions treat padding as zeros, and return the previous setting.

        Set ``on`` to False only for batches without padding.
        """
        was, self.use_pad_mask = self.use_pad_mask, on
        return was

    @property
    def att_context_size_all(self) -> list[list[int]]:
        """The list of ``att_context_size`` values from which training draws a value at random."""
        return self.contexts.sizes

    @property
    def att_context_size(self) -> list[int]:
        """The ``att_context_size`` in evaluation. Some NeMo models set this property."""
        return self.contexts.default

    @att_context_size.setter
    def att_context_size(self, size: Sequence[int]) -> None:
        super().set_default_att_context_size(size)
        self.streaming_cfg = None

    def set_default_att_context_size(self, att_context_size: Sequence[int] | None) -> None:
        """Set the ``att_context_size`` for evaluation, and warn if training does not draw this size.

        None keeps the current size.

        Raises:
            ValueError: ``att_context_style`` or the temporal U-Net does not support the size.
        """
        super().set_default_att_context_size(att_context_size)
        self.streaming_cfg = None
        if self.contexts.chunks is None and self.att_context_size not in self.att_context_size_all:
            logging.warning(f"att_context_size={self.att_context_size} is not in {self.att_context_size_all}")

    def change_attention_model(
        self,
        self_attention_model: str | None = None,
        att_context_size: Sequence[int] | None = None,
        update_config: bool = True,
        device: torch.device | None = None,
    ) -> None:
        """Switch to another ``self_attention_model`` or context.

        The encoder keeps all weights that the old and the new attention share. A warning names the weights that only
        one of both has, for example the weights of relative positions.

        Raises:
            ValueError: the attention model is unknown or does not support the context. For example,
                ``rel_pos_local_attn`` does not support unlimited context. The encoder is then unchanged.
            RuntimeError: the encoder is an optimized encoder.
        """
        refuse(self, "change_attention_model()")
        model = self_attention_model or self.attention.self_attention_model
        attention, contexts = replace(self.attention, self_attention_model=model), self.contexts
        if att_context_size is not None:
            contexts = ContextSettings(att_context_size, None, contexts.style, contexts.chunks, contexts.factor)
        attention.refuse_contexts(contexts, [*contexts.sizes, contexts.default])
        self.attention, self.contexts = attention, contexts
        missing, unexpected = list[str](), list[str]()
        for layer, new in zip(self.layers, attention.build(len(self.layers))):
            old = layer.self_attn.linear_q.weight
            differences = new.load_state_dict(layer.self_attn.state_dict(), strict=False)
            missing += differences.missing_keys
            unexpected += differences.unexpected_keys
            frozen = {name for name, weight in layer.self_attn.named_parameters() if not weight.requires_grad}
            for name, weight in new.named_parameters():
                weight.requires_grad_(name not in frozen)
            layer.self_attn = new.to(device or old.device, old.dtype).train(self.training)
        if warning := position_weights.warning(missing, unexpected):
            logging.warning(f"change_attention_model({model!r}): {warning}")
        self.pos_enc, self.time_reduce_pos_enc = attention.build_positions(self.dropout_emb)
        self.streaming_cfg = None
        if update_config and getattr(self, "_cfg", None) is not None:
            with open_dict(self._cfg):
                self._cfg.self_attention_model = model
                if att_context_size is not None:
                    self._cfg.att_context_size = list(att_context_size)
                    self._cfg.att_context_probs = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the weights. With rotary positions, leave out weights of relative positions with a warning."""
        if self.attention.self_attention_model == "rope" and (warning := position_weights.take_out(state_dict, prefix)):
            logging.warning(f"self_attention_model='rope': {warning}")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def change_subsampling_conv_chunking_factor(self, subsampling_conv_chunking_factor: int) -> None:
        """Split the batch of the subsampling convolutions into parts, to save memory.

        Args:
            subsampling_conv_chunking_factor: the number of parts, a power of 2; -1 or 1 for no split.

        Raises:
            ValueError: the factor is not -1, 1 or a power of 2.
        """
        self.pre_encode.split_batch(subsampling_conv_chunking_factor)
