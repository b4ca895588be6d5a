"""The rotation of queries and keys by the position of their frame (RoFormer, arXiv 2104.09864, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def turns(t: int, width: int, base: float, like: Tensor) -> Tensor:
    """Return the cosines and the sines of the angles of frames 0 to t - 1: (t, width).

    Pair i of a head turns by ``position * base ** (-2 i / width)``. Columns 0 to width / 2 - 1 are the cosines of the
    pairs. The other columns are the sines. The angles are computed in float32, because bfloat16 cannot represent all
    positions above 256. The result has the dtype and the device of ``like``.
    """
    pair = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
    position = torch.arange(t, dtype=torch.float32, device=like.device)
    angle = position[:, None] * base ** (-pair / width)
    return torch.cat([angle.cos(), angle.sin()], dim=-1).to(like.dtype)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the first values of each head: x (B, H, T, d), turns (T, width) -> (B, H, T, d).

    Value i and value i + width / 2 are a pair. The values from ``width`` on pass unchanged.
    """
    width = turns.size(-1)
    cos, sin = turns.to(x.dtype).chunk(2, dim=-1)
    first, second, rest = x[..., : width // 2], x[..., width // 2 : width], x[..., width:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def rotary_width(d_model: int, n_heads: int, fraction: float) -> int:
    """Return the number of values of each head that turn: the largest even number up to ``fraction`` of the head.

    NeMo refuses a fraction that gives an odd number. Here an odd number is rounded down, because the heads of the sizes
    s and m have 49 and 81 values.

    Raises:
        ValueError: Fewer than 2 values of a head would turn.
    """
    head = d_model // n_heads
    width = int(head * fraction) // 2 * 2
    if width < 2:
        raise ValueError(
            f"rotary_fraction={fraction}: of the {head} values of a head (d_model={d_model}, n_heads={n_heads}), "
            f"{width} would turn; at least 2 must turn, so set rotary_fraction to {2 / head:.3g} or more"
            if head > 1
            else f"n_heads={n_heads}: rotary positions need heads of at least 2 values, but d_model={d_model}"
        )
    return width
