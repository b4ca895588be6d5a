"""What a layer must know about the frames it sees, at one frame rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """Lengths and masks of a batch. S keys are the T frames at hand after the ones a stream has cached."""

    lengths: Tensor  # (B,)
    padding: Tensor  # (B, T)     True at padding
    blocked: Tensor  # (B, T, S)  True where query t must not see key s

    @classmethod
    def of(cls, lengths: Tensor, t: int, context: tuple[int, int], chunked: bool = False, cached: int = 0) -> Frames:
        """Masks for ``t`` frames of which ``lengths`` (B,) are valid, with ``context`` (left, right) in frames."""
        valid = torch.arange(t, device=lengths.device) < lengths[:, None]  # (B, T)
        past = valid.new_ones(valid.size(0), cached)
        seen = valid[:, :, None] & torch.cat([past, valid], dim=1)[:, None, :]  # (B, T, S)
        if context != (-1, -1):
            seen = seen & _reachable(t, cached, context, chunked, lengths.device)
        return cls(lengths, ~valid, ~seen)

    def halved(self) -> Frames:
        """The same frames after a time reduction by two: the first of each pair stands for both."""
        return Frames((self.lengths + 1) // 2, self.padding[:, ::2], self.blocked[:, ::2, ::2])

    def without_padding(self) -> Frames:
        """The same frames, every one of which convolutions take for valid."""
        return replace(self, padding=torch.zeros_like(self.padding))


def _reachable(t: int, cached: int, context: tuple[int, int], chunked: bool, device: torch.device) -> Tensor:
    """(T, S) True where the key lies within the attention context of the query; -1 is unlimited."""
    left, right = context
    key = torch.arange(-cached, t, device=device)
    query = key[cached:, None]
    if chunked:  # whole chunks of right + 1 frames: what a stream of such chunks can see
        key, query = key // (right + 1), query // (right + 1)
        left, right = left // (right + 1), 0
    reach = torch.ones(t, cached + t, dtype=torch.bool, device=device)
    if left >= 0:
        reach = reach & (query - key <= left)
    if right >= 0:
        reach = reach & (key - query <= right)
    return reach
