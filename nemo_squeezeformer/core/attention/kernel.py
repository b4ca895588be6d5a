"""The attention kernels: from queries, keys and values to the attended values. The equation is here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from ..frames.masks import Frames
from .scores import attention_weights, relative_shift


class Tokens(NamedTuple):
    """The global tokens of local attention: keys that all queries see at any distance."""

    scores: Tensor  # (B, H, T, G)
    values: Tensor  # (B, H, G, d)


class Operands(NamedTuple):
    """The inputs of a kernel, split into heads. Without relative positions, ``position`` and ``p`` are None."""

    content: Tensor  # (B, H, T, d)  queries for the scores by content
    k: Tensor  # (B, H, S, d)
    v: Tensor  # (B, H, S, d)
    position: Tensor | None = None  # (B, H, T, d)  queries for the scores by position
    p: Tensor | None = None  # (1, H, S + T - 1, d)  projected position encodings
    tokens: Tokens | None = None  # global tokens of local attention


class PlainKernel:
    """The reference implementation of attention.

    Kernels are not modules: the weights and the dropout belong to the attention module.
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


# The kernels by the values of the setting ``attention``; ``windows`` is for local attention. ``core/kernels``
# adds kernels. The argument is ``use_pytorch_sdpa_backends``; only ``sdpa`` uses it.
KERNELS: dict[str, Callable[[tuple[str, ...] | None], PlainKernel]] = {"plain": lambda backends: PlainKernel()}
