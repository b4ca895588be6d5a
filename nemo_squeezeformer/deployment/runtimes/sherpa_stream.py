"""The steps of a stream in sherpa-onnx.

A step of our graph takes feature frames before the chunk, the chunk, and frames after the chunk. sherpa-onnx begins at
feature frame 0 and gives only new frames: frame 0 has no frames before it. The graph for sherpa-onnx keeps the last
frames of a step in a cache, and puts these frames before the frames of the next step. In the first step the cache is
zero, and the encoder treats the frames before the start as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from nemo_squeezeformer.deployment.runtimes.value_names import rename

FEATURES, LENGTH = "audio_signal", "length"
CHANNEL, TIME = "cache_last_channel", "cache_last_time"
NEXT_CHANNEL = "cache_last_channel_next"
INNER = "_inside"  # the end of the names that the graph of NeMo's export gets


@dataclass(frozen=True)
class Steps:
    """The steps of a stream, in feature frames.

    A step gets ``given`` new frames, and the next step begins ``shift`` frames later. Together with the last ``before``
    frames of the previous step, the encoder reads the first ``window`` frames.
    """

    before: int
    window: int
    given: int
    shift: int

    @classmethod
    def of(cls, described: dict[str, Any]) -> Steps:
        """Return the steps for ``describe_steps``.

        The encoder can need fewer new frames than ``shift``. A step then gets ``shift`` frames, because sherpa-onnx
        gives each frame only once, also the frames that only the next step needs.
        """
        before, window, shift = described["before_start"], described["window"], described["shift"]
        return cls(before, window, max(window - before, shift), shift)


def keep_frames(model: Any, steps: Steps) -> None:
    """Change the graph ``model`` in place so that its inputs are only new feature frames.

    The input ``cache_last_channel`` (B, layers, rows, D) becomes (B, 1, 1, layers * rows * D + F * before). Its last
    F * before values are the kept feature frames.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    shape = [size.dim_value for size in inputs[CHANNEL].type.tensor_type.shape.dim][1:]
    features = inputs[FEATURES].type.tensor_type.shape.dim[1].dim_value
    size, kept = prod(shape), features * steps.before
    rename(graph, {name: name + INNER for name in (FEATURES, LENGTH, CHANNEL, NEXT_CHANNEL)})

    def constant(name: str, *values: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), f"{name}{INNER}"))
        return f"{name}{INNER}"

    zero, end, before = constant("zero", 0), constant("end", size + kept), constant("before", steps.before)
    split, time, last = constant("size", size), constant("axis", 2), constant("last", 3)
    start = [
        helper.make_node("Slice", [CHANNEL, zero, split, last], ["channel_row"]),
        helper.make_node("Reshape", ["channel_row", constant("channel", -1, *shape)], [CHANNEL + INNER]),
        helper.make_node("Slice", [CHANNEL, split, end, last], ["frames_row"]),
        helper.make_node("Reshape", ["frames_row", constant("frames", -1, features, steps.before)], ["frames_before"]),
        helper.make_node("Concat", ["frames_before", FEATURES], ["all_frames"], axis=2),
        helper.make_node("Slice", ["all_frames", zero, constant("window", steps.window), time], [FEATURES + INNER]),
        helper.make_node("Add", [LENGTH, before], ["all_length"]),
        helper.make_node("Min", ["all_length", constant("longest", steps.window)], [LENGTH + INNER]),
    ]
    first, stop = constant("first", steps.shift), constant("stop", steps.shift + steps.before)
    finish = [
        helper.make_node("Slice", ["all_frames", first, stop, time], ["frames_next"]),
        helper.make_node("Reshape", ["frames_next", constant("row", -1, 1, 1, kept)], ["frames_next_row"]),
        helper.make_node("Reshape", [NEXT_CHANNEL + INNER, constant("rows", -1, 1, 1, size)], ["channel_next_row"]),
        helper.make_node("Concat", ["channel_next_row", "frames_next_row"], [NEXT_CHANNEL], axis=3),
    ]
    nodes = [*start, *graph.node, *finish]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        if value.name in (CHANNEL, NEXT_CHANNEL):
            batch = value.type.tensor_type.shape.dim[0].dim_param
            value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [batch, 1, 1, size + kept]))
