"""The choice of the context of a streaming encoder, which determines the latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.live.feature_stream import FeatureStream
from nemo_squeezeformer.transcription.live.streams import latencies, latency


def set_context(model: Any, size: Sequence[int]) -> None:
    """Set the ``att_context_size`` of the encoder of a NeMo ASR model.

    Raises:
        ValueError: the encoder has no ``att_context_size``, or does not support the size.
    """
    encoder = model.encoder
    if not hasattr(encoder, "set_default_att_context_size"):
        name = type(encoder).__name__
        raise ValueError(f"an encoder of class {name} has no att_context_size; leave out --att-context-size")
    encoder.set_default_att_context_size(list(size))


def choose_context(model: Any, milliseconds: int | None, size: Sequence[int] | None) -> str:
    """Set the context of the encoder, and return a description of the latency and the context.

    Args:
        model: a NeMo ASR model.
        milliseconds: the value of ``--latency``; None for the setting of the model.
        size: the value of ``--att-context-size``, which is used instead of ``milliseconds``.

    Raises:
        ValueError: the features or the encoder cannot stream.
        UserError: the model does not have this latency.
    """
    from nemo.collections.asr.parts.mixins.streaming import StreamingEncoder

    FeatureStream(model.preprocessor, 0)  # checks the features before latencies are read
    encoder = model.encoder
    if not isinstance(encoder, StreamingEncoder):
        raise ValueError(
            f"an encoder of class {type(encoder).__name__} does not stream; use a model with a streaming encoder"
        )
    if size:
        set_context(model, size)
    else:
        known = latencies(model)
        fitting = [known_size for known_size, ms in known.items() if milliseconds in (None, ms)]
        if not fitting and known:
            has = ", ".join(f"{ms} ({list(size)})" for size, ms in sorted(known.items(), key=lambda item: item[1]))
            raise UserError(
                f"--latency {milliseconds}: choose a latency of the model, in ms with its att_context_size: {has}"
            )
        if fitting and tuple(encoder.att_context_size) not in fitting:
            encoder.set_default_att_context_size(list(fitting[0]))
    return f"{latency(model)} ms (att_context_size {list(encoder.att_context_size)})"
