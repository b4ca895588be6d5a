"""What audio of hours asks of a model: a window of attention, or memory for all frames; batches of bounded length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nemo_squeezeformer.core.encoder import SqueezeformerEncoder
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.memory import available_memory

REMEDY = '--att-context-size "[128, 128]"'
TOGETHER = 3600.0  # seconds of padded audio in a batch: one that has room for an hour is not asked for more
LONG = 600.0  # seconds from which on full attention is most of the time that an encoder takes
SCORES = 7  # matrices of all queries with all keys that are there at once, where attention makes them: measured


def set_context(model: Any, size: Sequence[int]) -> str:
    """Has the encoder attend to ``size`` frames, before and after each; says how far that is in seconds.

    With ``att_context_style: regular`` this is local attention, or full attention where a side is -1; the weights stay.
    Else it is the default of a model that was trained for several.

    Raises:
        UserError: for a model that has no such setting, or not this size.
    """
    given = f"--att-context-size {list(size)}"
    encoder: Any = getattr(model, "encoder", None)
    if not hasattr(encoder, "change_attention_model"):
        raise UserError(f"{given}: a model of class {type(model).__name__} has no window of attention; leave it out")
    if attention_of(encoder) == "abs_pos":
        raise UserError(
            f"{given}: the model has absolute positions, and no weights for those in a window; leave it out"
        )
    try:
        if style_of(encoder) != "regular":
            encoder.set_default_att_context_size(list(size))
        else:
            if len(size) != 2:
                raise ValueError(f"att_context_size={list(size)}: frames to the left and right, -1 for unlimited")
            model.change_attention_model("rel_pos" if min(size) < 0 else "rel_pos_local_attn", list(size))
    except ValueError as error:
        raise UserError(f"{given}: {error}") from None
    seconds = [f"{frames * frame_seconds(model):.2f} s" if frames >= 0 else "no limit" for frames in size]
    return f"att_context_size {list(size)}: {', '.join(seconds)}"


def notice_of_memory(model: Any, utterances: Sequence[Utterance], batch_size: int) -> str | None:
    """What there is to say about the longest of ``utterances`` before attention to all of it, if anything.

    Raises:
        UserError: where attention makes matrices of all frames with all frames, and memory does not hold them.
    """
    encoder: Any = getattr(model, "encoder", None)
    if attention_of(encoder) not in ("rel_pos", "abs_pos") or max(encoder.att_context_size) >= 0:
        return None
    longest = max(utterances, key=lambda utterance: utterance.duration)
    name = f"{longest.row['audio_filepath']} ({longest.duration / 60:.0f} min)"
    if in_blocks(encoder):
        if longest.duration < LONG:
            return None
        return f"{name}: full attention takes time with the square of that; {REMEDY} does not"
    rows = min(batch_size, len(utterances), max(int(TOGETHER // longest.duration), 1))
    frames = longest.duration / frame_seconds(model)
    needed = SCORES * rows * heads_of(encoder) * frames**2 * next(model.parameters()).element_size()
    available = available_memory(next(model.parameters()).device)
    if available is not None and needed > available:
        remedies = f"--batch-size 1, or {REMEDY}" if rows > 1 else f"{REMEDY}, or cut the recording"
        raise UserError(
            f"{name}: full attention over {frames:,.0f} frames, {rows} at once, needs about {needed / 2**30:,.0f} GiB, "
            f"and {available / 2**30:,.0f} GiB are free; pass {remedies}"
        )
    return None


def batches(durations: Sequence[float], batch_size: int) -> Iterator[list[int]]:
    """Indices in their order, ``batch_size`` together, or fewer where padded they would be longer than ``TOGETHER``."""
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


def attention_of(encoder: Any) -> str | None:
    """The ``self_attention_model``, or None of an encoder that has none."""
    if isinstance(encoder, SqueezeformerEncoder):
        return encoder.attention.self_attention_model
    return getattr(encoder, "self_attention_model", None)


def style_of(encoder: Any) -> str:
    return encoder.contexts.style if isinstance(encoder, SqueezeformerEncoder) else encoder.att_context_style


def in_blocks(encoder: Any) -> bool:
    """Whether attention never makes a matrix of all frames with all frames."""
    return isinstance(encoder, SqueezeformerEncoder) and encoder.attention.form in ("auto", "blocks")


def heads_of(encoder: Any) -> int:
    return encoder.attention.n_heads if isinstance(encoder, SqueezeformerEncoder) else encoder._cfg.n_heads


def frame_seconds(model: Any) -> float:
    """How long a frame of the encoder is, before any U-Net."""
    from nemo_squeezeformer.integration.latency import feature_ms

    return feature_ms(model.preprocessor) * model.encoder.subsampling_factor / 1000
