"""The rotation of queries and keys by the position of their frame (RoFormer, arXiv 2104.09864, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def turns(t: int, head: int, width: int, base: float, like: Tensor) -> Tensor:
    """Return the factors that rotate the values of frames 0 to t - 1: (t, 2 * head).

    Pair i of a head consists of the values i and i + width / 2. It is rotated by the angle
    ``position * base ** (-2 i / width)``. Columns 0 to head - 1 are the factors of the value itself: the cosines, and 1
    for a value that is not rotated. The other columns are the factors of the other value of the pair: the sines with
    their signs, and 0 for a value that is not rotated. The angles are computed in float32, because bfloat16 cannot
    represent all positions above 256. The result has the dtype and the device of ``like``.
    """
    pair = torch.arange(0, width, 2, dtype=torch.float32, device=like.device)
    position = torch.arange(t, dtype=torch.float32, device=like.device)
    angle = position[:, None] * base ** (-pair / width)
    cos, sin = angle.cos(), angle.sin()
    rest = [angle.new_zeros(t, n) for n in parts(head, width)[2:]]
    return torch.cat([cos, cos, *(zeros + 1.0 for zeros in rest), -sin, sin, *rest], dim=-1).to(like.dtype)


def turned(x: Tensor, turns: Tensor, parts: Sequence[int]) -> Tensor:
    """Rotate the pairs of each head: x (B, H, T, d), turns (T, 2d) -> (B, H, T, d). See ``parts``."""
    own, other = turns.to(x.dtype).chunk(2, dim=-1)
    first, second, *rest = x.split_with_sizes(list(parts), dim=-1)
    return torch.addcmul(x * own, torch.cat([second, first, *rest], dim=-1), other)


def parts(head: int, width: int) -> list[int]:
    """Return the sizes of the parts of a head: first values of the pairs, second values, values without rotation.

    The third part is left out if all values are rotated, because exporters do not support dimensions of size 0.
    """
    return [width // 2, width // 2, *([head - width] if head > width else [])]


def rotary_width(d_model: int, n_heads: int, fraction: float) -> int:
    """Return the number of rotated values of each head: the largest even number up to ``fraction`` of the head.

    NeMo refuses a fraction that gives an odd number. Here an odd number is rounded down, because the heads of the sizes
    s and m have 49 and 81 values.

    Raises:
        ValueError: Fewer than 2 values of a head would be rotated.
    """
    head = d_model // n_heads
    width = int(head * fraction) // 2 * 2
    if width < 2:
        raise ValueError(
            f"rotary_fraction={fraction}: of the {head} values of a head (d_model={d_model}, n_heads={n_heads}), "
            f"{width} would be rotated; at least 2 are needed, so set rotary_fraction to {2 / head:.3g} or more"
            if head > 1
            else f"n_heads={n_heads}: rotary positions need heads of at least 2 values, but d_model={d_model}"
        )
    return width
