"""The last frame of a whole utterance with CTC in sherpa-onnx.

n feature frames give ceil(n / factor) encoder frames, but sherpa-onnx reads only floor(n / factor) of these frames.
The graph for sherpa-onnx therefore removes a frame that does not change the text: a frame with the token of a
neighboring frame, or a blank between different tokens. The graph removes the last such frame.
"""

from __future__ import annotations

from typing import Any

from nemo_squeezeformer.deployment.runtimes.value_names import rename

LENGTH = "length"
# The shapes are (B, T, V) for the log-probabilities, and (B, T) for most other values. The value -1 is no token.
REMOVAL = """
<ir_version: 8, opset_import: ["": 17]>
removal (float[B, T, V] logits, int64[B] length) => (float[B, T, V] kept_logits) {
    factor = Constant <value_ints: ints = [FACTOR]> ()
    blank = Constant <value_int: int = BLANK> ()
    none = Constant <value_int: int = -1> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    axis = Constant <value_ints: ints = [1]> ()
    left = Constant <value_ints: ints = [0, 1, 0, 0]> ()
    right = Constant <value_ints: ints = [0, 0, 0, 1]> ()
    begin = Constant <value_ints: ints = [0]> ()
    end = Constant <value_ints: ints = [-1]> ()
    far = Constant <value_ints: ints = [9223372036854775807]> ()
    shape = Shape (logits)
    frames = Gather (shape, one)
    t = Range (zero, frames, one)
    row = Unsqueeze (length, axis)
    read = Div (row, factor)
    scaled = Mul (read, factor)
    more = Greater (row, scaled)
    more_int = Cast <to = 7> (more)
    valid_frames = Add (read, more_int)
    valid = Less (t, valid_frames)
    found = ArgMax <axis = 2, keepdims = 0> (logits)
    best = Where (valid, found, none)
    padded_left = Pad (best, left, none)
    before = Slice (padded_left, begin, end, axis)
    padded_right = Pad (best, right, none)
    after = Slice (padded_right, axis, far, axis)
    as_before = Equal (best, before)
    as_after = Equal (best, after)
    is_blank = Equal (best, blank)
    around_equal = Equal (before, after)
    around_differ = Not (around_equal)
    is_gap = And (is_blank, around_differ)
    repeated = Or (as_before, as_after)
    idle = Or (repeated, is_gap)
    removable = And (idle, valid)
    removable_int = Cast <to = 7> (removable)
    last = ArgMax <axis = 1, keepdims = 1, select_last_index = 1> (removable_int)
    removed = Where (more, last, frames)
    later = GreaterOrEqual (t, removed)
    later_int = Cast <to = 7> (later)
    moved = Add (t, later_int)
    most = Sub (frames, one)
    taken = Min (moved, most)
    index_axis = Constant <value_ints: ints = [2]> ()
    index = Unsqueeze (taken, index_axis)
    kept_logits = GatherND <batch_dims = 1> (logits, index)
}
"""


def keep_last_frame(model: Any, factor: int, blank: int) -> None:
    """Change the CTC graph ``model`` in place so that sherpa-onnx reads the text of all frames.

    If no frame can be removed, sherpa-onnx does not read the last frame.
    """
    from onnx import parser

    text = REMOVAL.replace("FACTOR", str(factor)).replace("BLANK", str(blank))
    removal, (output,) = parser.parse_model(text).graph, model.graph.output
    made = {name for node in removal.node for name in node.output}
    rename(model.graph, {output.name: "logits_of_all_frames"})
    inside = {name: f"removal/{name}" for name in made}
    rename(removal, inside | {"logits": "logits_of_all_frames", "length": LENGTH, "kept_logits": output.name})
    model.graph.node.extend(removal.node)
