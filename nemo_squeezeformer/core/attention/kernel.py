"""The reference implementation of attention, and the table of all attention kernels.

An attention kernel computes the attended values from queries, keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from ..frames.masks import Frames
from .scores import attention_weights, relative_shift


class Tokens(NamedTuple):
    """The global tokens of local attention: keys that all queries see at any distance."""

    scores: Tensor  # (B, H, T, G)  scores of all queries with the global tokens
    values: Tensor  # (B, H, G, d)


class Operands(NamedTuple):
    """The inputs of a kernel, split into heads of width d.

    Without relative positions, ``position`` and ``p`` are None.
    """

    content: Tensor  # (B, H, T, d)  queries for the scores by content
    k: Tensor  # (B, H, S, d)
    v: Tensor  # (B, H, S, d)
    position: Tensor | None = None  # (B, H, T, d)  queries for the scores by position
    p: Tensor | None = None  # (1, H, S + T - 1, d)  projected position encodings
    tokens: Tokens | None = None  # global tokens of local attention


class PlainKernel:
    """The reference implementation of attention.

    A kernel is not an ``nn.Module``. The weights and the dropout belong to the attention module.
    """

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """Return the attended values (B, H, T, d)."""
        content, k, v, position, p, _ = operands
        scores = content @ k.transpose(-2, -1)
        if position is not None and p is not None:
            scores = scores + position_scores(position, p, k.size(2))
        scores = scores / math.sqrt(content.size(-1))
        return dropout(attention_weights(scores, frames.blocked)) @ v


def position_scores(position: Tensor, p: Tensor, keys: int) -> Tensor:
    """Return the scores by position: (B, H, T, d), (1, H, S + T - 1, d) -> (B, H, T, S)."""
    return relative_shift(position @ p.transpose(-2, -1))[..., :keys]


# Functions that return the kernel for a value of the setting ``attention``, or the kernel ``windows`` of local
# attention. ``core/kernels`` adds further kernels. The argument of each function is ``use_pytorch_sdpa_backends``. Only
# the kernel ``sdpa`` uses this argument.
KERNELS: dict[str, Callable[[tuple[str, ...] | None], PlainKernel]] = {"plain": lambda backends: PlainKernel()}
