"""In which steps a stream goes through an encoder, and how far the outputs of a step depend on what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .context import Context
from .spans import Span

NORMS = ("instance_norm", "group_norm")  # their statistics are those of the chunk at hand


@dataclass(frozen=True)
class Steps:
    """All in frames of the encoder's output, multiples of what the temporal U-Net makes one."""

    shift: int  # frames that each step adds to the output
    ahead: int  # frames after those that it sees, and that the next step sees again
    left: int  # frames before those that attention remembers

    @classmethod
    def of(
        cls,
        encoder: Any,
        chunk: int | None = None,
        shift: int | None = None,
        left: int | None = None,
        unlimited: int | None = None,
        size: Sequence[int] | None = None,
    ) -> Steps:
        """The steps that give what the whole gives, by the context that the encoder has in evaluation.

        Args:
            chunk: frames that each step sees, ``shift`` of them new (None: all), in the place of those steps; where
                they are fewer than the context needs, the output is an approximation.
            left: frames to remember, in the place of the context's.
            unlimited: frames to remember where the context has no limit to the left; None refuses it.
            size: an ``att_context_size`` in the place of the one that the encoder has in evaluation.

        Raises:
            ValueError: for settings that do not stream, chunks that the temporal U-Net would cut, or a context without
                limits.
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
                        f"{what}={frames} frames must be a multiple of {factor}, as {factor} are one inside the "
                        f"temporal U-Net; nearest are {' or '.join(map(str, nearest))}"
                    )
            if shift > chunk:
                raise ValueError(f"shift_size={shift} must not be larger than chunk_size={chunk}")
            return cls(shift, chunk - shift, left)
        if context.right < 0:
            raise ValueError(
                f"{given}: a stream needs a limit to the right; set_default_att_context_size() chooses one that the "
                "encoder was trained for, and an offline model goes in overlapping windows (buffered inference)"
            )
        shift = context.chunk or factor
        last = _needed(encoder, encoder.span, context, shift - 1)
        return cls(shift, -(-(last - shift + 1) // factor) * factor, left)


def check(encoder: Any) -> None:
    """Raises ValueError where ``encoder`` gives something else in pieces than as a whole, whatever its context."""
    if encoder.attention.self_attention_model != "rel_pos":
        raise ValueError(
            f"self_attention_model={encoder.attention.self_attention_model!r} does not stream: a stream's frames have "
            "no absolute positions, and its window is 'rel_pos' with the same att_context_size"
        )
    if encoder.variant.margins.endless:
        raise ValueError("variant='original' does not stream: its subsampling and time reduction see what follows")
    if encoder.conv_norm_type.startswith(NORMS):
        raise ValueError(
            f"conv_norm_type={encoder.conv_norm_type!r} does not stream: it normalises over the frames at hand; use "
            "'batch_norm' or 'layer_norm'"
        )


def _needed(encoder: Any, span: Span, context: Context, last: int) -> int:
    """The last frame that goes into ``span``, at its rate, on which frame ``last`` of what comes out depends."""
    at = span.stop
    for branch in reversed(span.branches):
        for i in range(branch.stop, at):
            last = _before(encoder.layers[i].conv, context, last)
        # A pair of frames is one inside; around the branch they go as they are.
        last = max(last, 2 * _needed(encoder, branch, context.halved(), last // 2) + 1)
        at = branch.start
    for i in range(span.start, at):
        last = _before(encoder.layers[i].conv, context, last)
    return last


def _before(conv: Any, context: Context, last: int) -> int:
    """The same for one layer: its convolution, and before that its attention."""
    last = context.end_of_chunk(last) if conv.chunked and context.chunk else last + conv.right
    return (context.end_of_chunk(last) if context.chunk else last) + context.right
