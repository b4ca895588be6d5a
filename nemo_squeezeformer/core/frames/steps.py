"""The steps in which a stream passes through an encoder, and the look-ahead of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .context import Context
from .spans import Span
from .streamable import Convolution, Streamable

NORMS = ("instance_norm", "group_norm")  # norms whose statistics depend on all frames of the chunk


@dataclass(frozen=True)
class Steps:
    """The sizes of the steps of a stream, in encoder frames.

    ``shift`` and ``ahead`` are multiples of the number of frames that become one frame inside the temporal U-Net.
    """

    shift: int  # number of output frames of each step
    ahead: int  # number of frames after the output frames that the step sees; the next step sees these frames again
    left: int  # number of frames before the output frames that attention remembers

    @classmethod
    def of(
        cls,
        encoder: Streamable,
        chunk: int | None = None,
        shift: int | None = None,
        left: int | None = None,
        unlimited: int | None = None,
        size: Sequence[int] | None = None,
    ) -> Steps:
        """Return the steps for the context of the encoder in evaluation.

        Without ``chunk``, the output of a stream in these steps equals the output for the whole utterance.

        Args:
            encoder: The encoder.
            chunk: Number of frames that each step sees. None derives the steps from the context. If the context needs
                more frames, the output is an approximation.
            shift: Number of new frames in each chunk. None means that all frames are new.
            left: Number of frames to remember. None means the left context of the encoder.
            unlimited: Number of frames to remember if the left context is unlimited. None refuses an unlimited left
                context.
            size: ``att_context_size`` to use instead of the encoder's size in evaluation.

        Raises:
            ValueError: The settings do not support streaming, the temporal U-Net would cut the chunks, or the context
                is unlimited.
        """
        check(encoder)
        size, factor = encoder.contexts.default if size is None else size, encoder.contexts.factor
        context = Context.of(size, encoder.contexts.style)
        if left is None:
            left = context.left if context.left >= 0 else unlimited
        given = f"att_context_size={list(size)}"
        if left is None:
            raise ValueError(f"{given}: a stream needs a limit to the left")
        if chunk is not None:
            shift = chunk if shift is None else shift
            for what, frames in (("chunk_size", chunk), ("shift_size", shift)):
                if frames < 1 or frames % factor:
                    nearest = sorted({max(frames // factor, 1) * factor, max(-(-frames // factor), 1) * factor})
                    raise ValueError(
                        f"{what}={frames} frames must be a multiple of {factor}, because {factor} frames become one "
                        f"inside the temporal U-Net; the nearest values are {' or '.join(map(str, nearest))}"
                    )
            if shift > chunk:
                raise ValueError(f"shift_size={shift} must not be larger than chunk_size={chunk}")
            return cls(shift, chunk - shift, left)
        if context.right < 0:
            raise ValueError(
                f"{given}: a stream needs a limit to the right; choose a limited size of the training by "
                "set_default_att_context_size(), or run an offline model in overlapping windows (buffered inference)"
            )
        shift = context.chunk or factor
        last = _needed(encoder, encoder.span, context, shift - 1)
        return cls(shift, -(-(last - shift + 1) // factor) * factor, left)


def check(encoder: Streamable) -> None:
    """Raise ``ValueError`` if ``encoder`` cannot stream with any context."""
    if encoder.attention.self_attention_model not in ("rel_pos", "rope"):
        raise ValueError(
            f"self_attention_model={encoder.attention.self_attention_model!r} does not stream: use 'rel_pos' or "
            "'rope'. The frames of a stream have no absolute positions; for a window, keep att_context_size with "
            "'rel_pos' or 'rope'"
        )
    if encoder.variant.margins.endless:
        raise ValueError("variant='original' does not stream: the subsampling and reduction layer see later frames")
    if encoder.conv_norm_type.startswith(NORMS):
        raise ValueError(
            f"conv_norm_type={encoder.conv_norm_type!r} does not stream: the statistics depend on the chunk; use "
            "'batch_norm' or 'layer_norm'"
        )


def _needed(encoder: Streamable, span: Span, context: Context, last: int) -> int:
    """Return the last input frame of ``span`` on which the output frame ``last`` of ``span`` depends.

    Both frames are counted at the frame rate of ``span``.
    """
    at = span.stop
    for branch in reversed(span.branches):
        for i in range(branch.stop, at):
            last = _before(encoder.layers[i].conv, context, last)
        # Inside the branch, a pair of frames is one frame. The residual connection does not join the frames of a pair.
        last = max(last, 2 * _needed(encoder, branch, context.halved(), last // 2) + 1)
        at = branch.start
    for i in range(span.start, at):
        last = _before(encoder.layers[i].conv, context, last)
    return last


def _before(conv: Convolution, context: Context, last: int) -> int:
    """Return the last input frame of a layer on which the output frame ``last`` of the layer depends."""
    last = context.end_of_chunk(last) if conv.chunked and context.chunk else last + conv.right
    return (context.end_of_chunk(last) if context.chunk else last) + context.right
