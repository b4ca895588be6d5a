"""The report of `info` on a model, as a dict of plain values. The command prints the report as JSON or as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nemo_squeezeformer.analysis.counting import gflops, parameters, peak_bytes
from nemo_squeezeformer.analysis.drawing import drawing
from nemo_squeezeformer.analysis.latency import streams
from nemo_squeezeformer.analysis.parts import Part, parts, span_of
from nemo_squeezeformer.analysis.source import Source
from nemo_squeezeformer.training.settings import value

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
FLOAT = 4  # bytes of a float32
SETTINGS = ("d_model", "n_layers", "n_heads", "subsampling", "self_attention_model", "block", "variant")


def report(source: Source, seconds: float, batch: int) -> dict[str, Any]:
    """Return the report for ``batch`` utterances with a length of ``seconds``.

    The units are bytes, milliseconds and 10^9 operations.
    A value is None if the value is unknown for this encoder. ``notes`` then contains the reason.
    """
    encoder, notes = source.encoder, list(source.notes)
    feature_ms = 1000 * float(value(source.config, "preprocessor.window_stride", 0.01))
    features, frames = _features(source), round(1000 * seconds / feature_ms)
    span = span_of(encoder)
    factor = getattr(encoder, "subsampling_factor", value(source.config, "encoder.subsampling_factor"))
    frame_ms = None if factor is None else feature_ms * factor
    there = parts(encoder)
    counted = _attempt("Operations", partial(gflops, encoder, features, frames, there), notes)
    memory = _attempt("Memory", partial(_memory, source, features, frames, batch), notes)
    each: Sequence[float | None] = counted[1] if counted else [None] * len(there)
    if span is None:
        notes.append(_undrawn(encoder))
    streaming, reason = streams(encoder, feature_ms, batch)
    return {
        "name": source.name,
        "model": None if source.model is None else type(source.model).__name__,
        "encoder": type(encoder).__name__,
        "settings": {
            name: found for name in SETTINGS if (found := value(source.config, f"encoder.{name}")) is not None
        },
        "seconds": seconds,
        "batch": batch,
        "features": features,
        "feature_ms": feature_ms,
        "frame_ms": frame_ms,
        "drawing": None if span is None or frame_ms is None else drawing(span, feature_ms, frame_ms),
        "parts": [_row(encoder, part, None if span is None else frame_ms, n) for part, n in zip(there, each)],
        "around_the_encoder": _around(source),
        "parameters": {
            "encoder": parameters(encoder),
            "model": None if source.model is None else parameters(source.model),
        },
        "gflops": counted[0] if counted else None,
        "streams": streaming,
        "does_not_stream": reason or None,
        "memory": memory,
        "notes": notes,
    }


def _row(encoder: nn.Module, part: Part, frame_ms: float | None, gflops: float | None) -> dict[str, Any]:
    """Return the row of one part. ``frame_ms`` is the length of an encoder frame, or None for an unknown length."""
    return {
        "name": part.name,
        "frame_ms": None if frame_ms is None else frame_ms * 2**part.halved,
        "parameters": sum(parameters(encoder.get_submodule(name)) for name in part.modules),
        "gflops": gflops,
    }


def _undrawn(encoder: nn.Module) -> str:
    kind, position = type(encoder).__name__, getattr(encoder, "reduction_position", None)
    if position is not None:
        where = "after the last layer" if position < 0 else f"after layer {position}"
        return f"No drawing: {kind} lowers the frame rate {where} and does not restore the frame rate."
    return f"No drawing: {kind} does not have the structure of Conformer or Squeezeformer."


def _attempt(what: str, count: Callable[[], T], notes: list[str]) -> T | None:
    """Return the result of ``count``. If ``count`` raises an error, return None and add a note.

    The forward of an encoder of another package may read the values of tensors. This raises an error, because tensors
    on the meta device have no values.
    """
    try:
        return count()
    except Exception as error:
        notes.append(f"{what} could not be counted: the forward of the encoder raises {type(error).__name__}.")
        return None


def _features(source: Source) -> int:
    """Return the number of feature channels of the encoder's input."""
    own = (getattr(source.encoder, name, None) for name in ("feat_in", "_feat_in"))
    found = next((number for number in own if isinstance(number, int)), None)
    return found or value(source.config, "encoder.feat_in") or value(source.config, "preprocessor.features", 80)


def _around(source: Source) -> list[dict[str, Any]]:
    """Return the name and the number of parameters of each module of the model except the encoder."""
    if source.model is None:
        return []
    others = [(name, child) for name, child in source.model.named_children() if child is not source.encoder]
    return [{"name": name, "parameters": count} for name, child in others if (count := parameters(child))]


def _memory(source: Source, features: int, frames: int, batch: int) -> dict[str, int]:
    """Return the memory in bytes, with all tensors in float32.

    ``inference`` and ``training`` are the peak memory of the encoder's tensors. ``weights`` and ``adam`` are for the
    whole model, or for the encoder if the model is unknown.
    """
    weights = FLOAT * parameters(source.encoder if source.model is None else source.model)
    size = (features, frames, batch)
    return {
        "weights": weights,
        "adam": 2 * weights,
        "inference": peak_bytes(source.encoder, *size, training=False),
        "training": peak_bytes(source.encoder, *size, training=True),
    }
