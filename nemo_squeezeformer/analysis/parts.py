"""The parts of an encoder in the order of computation. Each part has a name, modules and a frame rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemo_squeezeformer.analysis.drawing import layers
from nemo_squeezeformer.core.frames.spans import Span, build_spans

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Part:
    """A part of an encoder.

    ``modules`` are the names of the modules of this part in the encoder. The frame rate of the part is the frame rate
    of the encoder divided by ``2**halved``.
    """

    name: str
    modules: tuple[str, ...]
    halved: int


def span_of(encoder: nn.Module) -> Span | None:
    """Return the layers of an encoder and the branches of the temporal U-Net as a ``Span``.

    The encoder can be a Squeezeformer of this package or of NeMo 2.7.3, or a Conformer. For other networks the result
    is None.
    """
    span = getattr(encoder, "span", None)
    if isinstance(span, Span):
        return span
    blocks = getattr(encoder, "layers", None)
    if blocks is None or not hasattr(encoder, "pre_encode"):
        return None
    if getattr(encoder, "reduction_position", None) is not None:  # the encoder does not restore the frame rate
        return None
    reduce, recover = (getattr(encoder, name, None) for name in ("time_reduce_idx", "time_recovery_idx"))
    return build_spans(len(blocks), reduce, recover)


def parts(encoder: nn.Module) -> list[Part]:
    """Return all parts of an encoder that have parameters.

    If ``span_of`` returns None, the parts are the child modules of the encoder.
    """
    span = span_of(encoder)
    found = [*_entrance(encoder), *_within(span, 0)] if span is not None else []
    known = {module.split(".")[0] for part in found for module in part.modules}
    rest = [
        name for name, child in encoder.named_children() if name not in known and any(True for _ in child.parameters())
    ]
    return found + [Part(NAMES.get(name, name), (name,), 0) for name in rest]


def _entrance(encoder: nn.Module) -> Iterator[Part]:
    yield Part("subsampling", ("pre_encode",), 0)
    norm = getattr(encoder, "pre_ln", None)
    if norm is not None and any(True for _ in norm.parameters()):
        yield Part("norm", ("pre_ln",), 0)


def _within(span: Span, halved: int) -> Iterator[Part]:
    at = span.start
    for branch in span.branches:
        yield from _run(at, branch.start, halved)
        yield Part("reduce", (f"time_reduce_layer{branch.suffix}",), halved + 1)
        yield from _within(branch, halved + 1)
        yield Part("recover", (f"time_recovery_layer{branch.suffix}",), halved)
        at = branch.stop
    yield from _run(at, span.stop, halved)


def _run(start: int, stop: int, halved: int) -> Iterator[Part]:
    if start < stop:
        yield Part(layers(start, stop), tuple(f"layers.{i}" for i in range(start, stop)), halved)


NAMES = {"out_proj": "projection of the output"}
