"""Functions for hours of audio: the attention window, the memory of full attention, and batches of limited length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from nemo_squeezeformer.core.encoder import SqueezeformerEncoder
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.memory import available_memory

REMEDY = '--att-context-size "[128, 128]"'
TOGETHER = 3600.0  # maximum seconds of padded audio in a batch; a batch then needs the memory of an hour of audio
LONG = 600.0  # seconds of audio above which full attention takes most of the encoder's time
FULL = ("rel_pos", "abs_pos", "rope")  # attention models that can attend to all frames
SCORES = 7  # measured number of (T, T) matrices in memory at once if attention computes whole matrices


class Conformer(Protocol):
    """An encoder of NeMo with the attention of NeMo's Conformer."""

    att_context_style: str
    _cfg: Any  # the settings of the encoder


def set_context(model: Any, size: Sequence[int]) -> str:
    """Set the numbers of frames that the encoder attends to before and after each frame.

    With ``att_context_style: regular`` the function sets local attention, or full attention if a number is -1. Rotary
    attention has windows of its own. The weights do not change. With another style the function sets the default size
    of a model that was trained with several sizes.

    Returns:
        A sentence with the size in seconds.

    Raises:
        UserError: the model has no attention window, or the attention window cannot have this size.
    """
    given = f"--att-context-size {list(size)}"
    encoder = getattr(model, "encoder", None)
    if encoder is None or not hasattr(encoder, "change_attention_model"):
        raise UserError(
            f"{given}: a model of class {type(model).__name__} has no attention window; leave out this option"
        )
    if attention_of(encoder) == "abs_pos":
        raise UserError(
            f"{given}: the model has absolute positions, and no weights for the relative positions that a window "
            "needs; leave out the option"
        )
    try:
        if style_of(encoder) != "regular":
            encoder.set_default_att_context_size(list(size))
        else:
            if len(size) != 2:
                raise ValueError(
                    f"att_context_size={list(size)}: expected two numbers, the frames to the left and right, "
                    "-1 for unlimited"
                )
            windows = "rel_pos" if min(size) < 0 else "rel_pos_local_attn"
            model.change_attention_model("rope" if attention_of(encoder) == "rope" else windows, list(size))
    except ValueError as error:
        raise UserError(f"{given}: {error}") from None
    seconds = [f"{frames * frame_seconds(model):.2f} s" if frames >= 0 else "no limit" for frames in size]
    return f"att_context_size {list(size)}: {', '.join(seconds)}"


def notice_of_memory(model: Any, utterances: Sequence[Utterance], batch_size: int) -> str | None:
    """Return a notice about the cost of full attention over the longest utterance, or None if the cost is small.

    Raises:
        UserError: attention computes (T, T) matrices, and the matrices do not fit into memory.
    """
    encoder = getattr(model, "encoder", None)
    if encoder is None or attention_of(encoder) not in FULL:
        return None
    longest = max(utterances, key=lambda utterance: utterance.duration)
    name = f"{longest.row['audio_filepath']} ({longest.duration / 60:.0f} min)"
    if in_blocks(encoder):
        if longest.duration < LONG or max(encoder.att_context_size) >= 0:
            return None
        return (
            f"{name}: the time of full attention grows with the square of the length; "
            f"with {REMEDY} the time grows with the length"
        )
    rows = min(batch_size, len(utterances), max(int(TOGETHER // longest.duration), 1))
    frames = longest.duration / frame_seconds(model)
    needed = SCORES * rows * heads_of(encoder) * frames**2 * next(model.parameters()).element_size()
    available = available_memory(next(model.parameters()).device)
    if available is not None and needed > available:
        has_window = attention_of(encoder) != "abs_pos" and style_of(encoder) == "regular"
        ways = ["pass --batch-size 1"] * (rows > 1) + [f"pass {REMEDY}"] * has_window + ["cut the recording"]
        raise UserError(
            f"{name}: full attention over {frames:,.0f} frames with {rows} utterances at once needs about "
            f"{needed / 2**30:,.0f} GiB, but {available / 2**30:,.0f} GiB are free; {', or '.join(ways)}"
        )
    return None


def batches(durations: Sequence[float], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of indices of ``durations``, in the order of ``durations``.

    A batch has ``batch_size`` indices, or fewer if the padded audio of the batch would be longer than ``TOGETHER``
    seconds.
    """
    batch: list[int] = []
    longest = 0.0
    for index, duration in enumerate(durations):
        longest = max(longest, duration)
        if batch and (len(batch) == batch_size or longest * (len(batch) + 1) > TOGETHER):
            yield batch
            batch, longest = [], duration
        batch.append(index)
    if batch:
        yield batch


def attention_of(encoder: object) -> str | None:
    """Return the ``self_attention_model`` of an encoder, or None if the encoder does not have this attribute."""
    if isinstance(encoder, SqueezeformerEncoder):
        return encoder.attention.self_attention_model
    return getattr(encoder, "self_attention_model", None)


def style_of(encoder: SqueezeformerEncoder | Conformer) -> str:
    """Return the ``att_context_style`` of an encoder."""
    return encoder.contexts.style if isinstance(encoder, SqueezeformerEncoder) else encoder.att_context_style


def in_blocks(encoder: object) -> bool:
    """Return True if attention never computes a whole (T, T) matrix."""
    if not isinstance(encoder, SqueezeformerEncoder):
        return False
    attention = encoder.attention
    fused = attention.form == "sdpa" or attention.sdpa is not None
    return attention.local or not (attention.form == "plain" or (fused and attention_of(encoder) == "rel_pos"))


def heads_of(encoder: SqueezeformerEncoder | Conformer) -> int:
    """Return the number of attention heads of an encoder."""
    return encoder.attention.n_heads if isinstance(encoder, SqueezeformerEncoder) else encoder._cfg.n_heads


def frame_seconds(model: Any) -> float:
    """Return the length of an encoder frame in seconds, at the rate after the subsampling."""
    from nemo_squeezeformer.integration.latency import feature_ms

    return feature_ms(model.preprocessor) * model.encoder.subsampling_factor / 1000
