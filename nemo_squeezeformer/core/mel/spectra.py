"""The frames of long audio in pieces, so that the memory of the spectra does not grow with the length of the audio."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dispatch import in_graph

PIECE = 8192  # number of frames whose spectra are computed at once; the spectra of an hour would take over 1 GiB


def in_pieces(compute: Callable[[Tensor], Tensor], x: Tensor, n_fft: int, hop: int) -> Tensor:
    """Compute the frames of ``x`` in pieces of time: (B, N + n_fft) -> (B, F, 1 + N // hop).

    Args:
        compute: A function that computes the frames of a piece of ``x``, without padding.
        x: Signal with ``n_fft // 2`` samples before the middle of the first frame.
        n_fft: Number of samples in a frame.
        hop: Distance between two frames in samples.
    """
    if in_graph():  # a recorded graph would fix the number of pieces
        return compute(x)
    total, together = 1 + (x.size(1) - n_fft) // hop, max(PIECE // x.size(0), 1)
    ends = [(first, min(first + together, total) - 1) for first in range(0, total, together)]
    return torch.cat([compute(x[:, first * hop : last * hop + n_fft]) for first, last in ends], dim=-1)
