"""The rotation of queries and keys by the position of their frame (RoFormer, arXiv 2104.09864, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def turns(t: int, head: int, width: int, base: float, like: Tensor) -> Tensor:
    """Return the factors that turn the values of frames 0 to t - 1: (t, 2 * head).

    Pair i of a head is the values i and i + width / 2. It turns by ``position * base ** (-2 i / width)``. Columns 0 to
    head - 1 are the factors of the values themselves: the cosines, and 1 for values that do not turn. The other columns
    are the factors of the other value of each pair: the sines with their signs, and 0 for values that do not turn. The
    angles are computed in float32, because bfloat16 cannot represent all positions above 256. The result has the dtype
    and the device of ``like``.
    """
    pair = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
    position = torch.arange(t, dtype=torch.float32, device=like.device)
    angle = position[:, None] * base ** (-pair / width)
    cos, sin, rest = angle.cos(), angle.sin(), angle.new_zeros(t, head - width)
    return torch.cat([cos, cos, rest + 1.0, -sin, sin, rest], dim=-1).to(like.dtype)


def turned(x: Tensor, turns: Tensor, width: int) -> Tensor:
    """Rotate the first ``width`` values of each head: x (B, H, T, d), turns (T, 2d) -> (B, H, T, d)."""
    own, other = turns.to(x.dtype).chunk(2, dim=-1)
    swapped = torch.cat([x[..., width // 2 : width], x[..., : width // 2], x[..., width:]], dim=-1)
    return torch.addcmul(x * own, swapped, other)


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
