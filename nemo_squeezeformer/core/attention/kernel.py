"""From queries, keys and values to what the queries gather: the equation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from ..frames.masks import Frames
from .scores import attention_weights, relative_shift


class Tokens(NamedTuple):
    """Keys that all queries see, wherever they are."""

    scores: Tensor  # (B, H, T, G)
    values: Tensor  # (B, H, G, d)


class Operands(NamedTuple):
    """What attention multiplies, by heads. Where it knows no positions, the last two are None."""

    content: Tensor  # (B, H, T, d)  queries as they meet keys
    k: Tensor  # (B, H, S, d)
    v: Tensor  # (B, H, S, d)
    position: Tensor | None = None  # (B, H, T, d)  queries as they meet positions
    p: Tensor | None = None  # (1, H, S + T - 1, d)  positions
    tokens: Tokens | None = None  # of local attention


class PlainKernel:
    """Attention written out. Kernels are no modules: the weights are the attention's, and so is its dropout."""

    def __call__(self, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        """(B, H, T, d)"""
        content, k, v, position, p, _ = operands
        scores = content @ k.transpose(-2, -1)
        if position is not None and p is not None:
            scores = scores + position_scores(position, p, k.size(2))
        scores = scores / math.sqrt(content.size(-1))
        return dropout(attention_weights(scores, frames.blocked)) @ v


def position_scores(position: Tensor, p: Tensor, keys: int) -> Tensor:
    """(B, H, T, d), (1, H, S + T - 1, d) -> (B, H, T, S)"""
    return relative_shift(position @ p.transpose(-2, -1))[..., :keys]


# Kernels by the names that ``attention`` gives them; ``windows`` is for local attention. ``core/kernels`` adds to them.
# Each is made from the backends of ``use_pytorch_sdpa_backends``, which only ``sdpa`` looks at.
KERNELS: dict[str, Callable[[tuple[str, ...] | None], PlainKernel]] = {"plain": lambda backends: PlainKernel()}
