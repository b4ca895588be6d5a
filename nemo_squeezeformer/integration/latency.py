"""How long a stream waits for its next text, and what it remembers, under any ``att_context_size``; nothing is set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nemo_squeezeformer.core.frames.steps import Steps
from nemo_squeezeformer.integration.caches import Caches
from nemo_squeezeformer.integration.streaming import MAX_CONTEXT, Streaming


class Chunks(NamedTuple):
    """The chunks of a stream, after its first one."""

    frames: int  # feature frames that a step waits for: its own, and what comes after them where there is look-ahead
    shift: int  # feature frames from one step to the next
    left: int  # frames of the encoder that attention remembers

    @classmethod
    def of(cls, encoder: Any, size: Sequence[int] | None = None) -> Chunks:
        """Those of an ``encoder`` with NeMo's streaming interface: ours, or one of NeMo's own.

        Args:
            size: an ``att_context_size``; None for what the encoder is set to.

        Raises:
            ValueError: for settings that do not stream.
        """
        if isinstance(encoder, Streaming) and size is not None:
            steps, factor = Steps.of(encoder, unlimited=MAX_CONTEXT, size=size), encoder.subsampling_factor
            return cls(factor * (steps.shift + steps.ahead), factor * steps.shift, steps.left)
        config = encoder.streams()[0] if isinstance(encoder, Streaming) else _nemo_config(encoder, size)
        return cls(_further(config.chunk_size), _further(config.shift_size), config.last_channel_cache_size)


def latency_ms(encoder: Any, feature_ms: float, size: Sequence[int] | None = None) -> float:
    """Milliseconds of audio that a step waits for, of features that are ``feature_ms`` apart; see ``Chunks.of``."""
    return feature_ms * Chunks.of(encoder, size).frames


def empty_caches(encoder: Any, batch: int, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The caches of ``batch`` streams before their first chunk, in float32, under an ``att_context_size``."""
    if isinstance(encoder, Streaming):
        device = next(encoder.parameters()).device
        return Caches(encoder, Chunks.of(encoder, size).left).zeros(batch, torch.float32, device)
    apart = copy.copy(encoder)
    apart.streaming_cfg = _nemo_config(encoder, size)
    return apart.get_initial_cache_state(batch_size=batch)


def feature_ms(preprocessor: Any) -> float:
    """Milliseconds from one feature frame to the next."""
    return 1000 * preprocessor.featurizer.hop_length / preprocessor._sample_rate


def _nemo_config(encoder: Any, size: Sequence[int] | None) -> Any:
    """The ``streaming_cfg`` of one of NeMo's own encoders: as it is set, or as it would be under ``size``."""
    if size is None and encoder.streaming_cfg is not None:
        return encoder.streaming_cfg
    # NeMo's method writes what it finds into the encoder and its layers, so it is given a copy without layers.
    apart = copy.copy(encoder)
    apart._modules = {**encoder._modules, "layers": nn.ModuleList()}
    apart.setup_streaming_params(att_context_size=None if size is None else list(size))
    return apart.streaming_cfg


def _further(size: int | Sequence[int]) -> int:
    """NeMo's sizes are pairs where the first chunk differs from the others: that of the others."""
    return size if isinstance(size, int) else size[1]
