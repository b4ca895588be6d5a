"""The latency and the caches of a stream for any ``att_context_size``. The functions do not change the encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from nemo_squeezeformer.core.frames.steps import Steps
from nemo_squeezeformer.integration.caches import Caches
from nemo_squeezeformer.integration.streaming import MAX_CONTEXT, Streaming


class CacheAware(Protocol):
    """An encoder with NeMo's streaming interface."""

    streaming_cfg: Any  # NeMo's settings of a stream
    att_context_size_all: Sequence[Sequence[int]]  # the ``att_context_size`` values from which training draws
    _modules: dict[str, nn.Module | None]  # the child modules by name

    def setup_streaming_params(self, *, att_context_size: list[int] | None) -> None:
        """Set ``streaming_cfg`` for this ``att_context_size``. None keeps the current size."""

    def get_initial_cache_state(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the caches of ``batch_size`` new streams."""


class Chunks(NamedTuple):
    """The sizes of a chunk of a stream. The first chunk of the stream may have other sizes."""

    frames: int  # feature frames that a step waits for, including the look-ahead
    shift: int  # feature frames from one step to the next
    left: int  # encoder frames that attention remembers

    @classmethod
    def of(cls, encoder: CacheAware, size: Sequence[int] | None = None) -> Chunks:
        """Return the sizes of a chunk for an ``encoder`` with NeMo's streaming interface.

        Args:
            encoder: a Squeezeformer encoder, or an encoder of NeMo.
            size: an ``att_context_size``; None for the current setting of the encoder.

        Raises:
            ValueError: the settings do not support streaming.
        """
        if isinstance(encoder, Streaming) and size is not None:
            steps, factor = Steps.of(encoder, unlimited=MAX_CONTEXT, size=size), encoder.subsampling_factor
            return cls(factor * (steps.shift + steps.ahead), factor * steps.shift, steps.left)
        config = encoder.streams()[0] if isinstance(encoder, Streaming) else _nemo_config(encoder, size)
        return cls(further(config.chunk_size), further(config.shift_size), config.last_channel_cache_size)


def latency_ms(encoder: CacheAware, feature_ms: float, size: Sequence[int] | None = None) -> float:
    """Return the length of the audio that a step waits for, in milliseconds.

    Args:
        encoder: an encoder with NeMo's streaming interface.
        feature_ms: milliseconds from one feature frame to the next feature frame.
        size: an ``att_context_size``; None for the current setting of the encoder.
    """
    return feature_ms * Chunks.of(encoder, size).frames


def empty_caches(encoder: CacheAware, batch: int, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the float32 caches of ``batch`` new streams for the ``att_context_size`` in ``size``."""
    if isinstance(encoder, Streaming):
        device = next(encoder.parameters()).device
        return Caches(encoder, Chunks.of(encoder, size).left).zeros(batch, torch.float32, device)
    apart = copy.copy(encoder)
    apart.streaming_cfg = _nemo_config(encoder, size)
    return apart.get_initial_cache_state(batch_size=batch)


def feature_ms(preprocessor: Any) -> float:
    """Return the milliseconds from one feature frame to the next feature frame."""
    return 1000 * preprocessor.featurizer.hop_length / preprocessor._sample_rate


def _nemo_config(encoder: CacheAware, size: Sequence[int] | None) -> Any:
    """Return the ``streaming_cfg`` of an encoder of NeMo: the current setting, or the setting for ``size``."""
    if size is None and encoder.streaming_cfg is not None:
        return encoder.streaming_cfg
    # NeMo's method changes the encoder and the layers of the encoder. Call the method on a copy without layers.
    apart = copy.copy(encoder)
    apart._modules = {**encoder._modules, "layers": nn.ModuleList()}
    apart.setup_streaming_params(att_context_size=None if size is None else list(size))
    return apart.streaming_cfg


def further(size: int | Sequence[int]) -> int:
    """Return the size of the chunks after the first chunk.

    NeMo gives a pair of sizes if the first chunk has another size than the following chunks.
    """
    return size if isinstance(size, int) else size[1]
