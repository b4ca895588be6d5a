"""The TDT loss for CPUs. NeMo has this loss only for CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.measuring.transducer_loss import IMPOSSIBLE, skewed


class AntiDiagonalTDTLoss(nn.Module):
    """The loss of a token-and-duration transducer (arXiv 2304.06795), for a whole anti-diagonal of the lattice at once.

    Args:
        blank: the number of tokens without the blank.
        durations: the numbers of frames that the transducer can skip.
        sigma: subtracted from the logarithms of the token probabilities.
    """

    reduction = None  # NeMo reduces the loss of the utterances

    def __init__(self, blank: int, durations: Sequence[int], sigma: float = 0.0):
        super().__init__()
        self.blank, self.durations, self.sigma = blank, tuple(durations), sigma

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """Return the loss of each utterance: acts `(B, T, U + 1, V + 1 + durations)`, labels `(B, U)` -> `(B,)`."""
        t, u = acts.size(1), acts.size(2)
        tokens, skips = acts.split([self.blank + 1, len(self.durations)], dim=-1)
        tokens = tokens.log_softmax(dim=-1) - self.sigma
        skip = [skewed(one) for one in skips.log_softmax(dim=-1).unbind(-1)]  # each (T + U, B, U + 1)
        blank = skewed(tokens[..., self.blank])
        emit = skewed(tokens[:, :, :-1].gather(-1, labels[:, None, :, None].expand(-1, t, -1, 1))[..., 0])

        start = torch.full_like(blank[0], IMPOSSIBLE)
        start[:, 0] = 0.0
        alphas = [start]
        for d in range(1, t + u - 1):
            arcs = []
            for frames, each in zip(self.durations, skip):
                if 0 < frames <= d:
                    arcs.append(alphas[d - frames] + blank[d - frames] + each[d - frames])
                if (before := d - frames - 1) >= 0:
                    token = alphas[before][:, :-1] + emit[before] + each[before][:, :-1]
                    arcs.append(nn.functional.pad(token, (1, 0), value=IMPOSSIBLE))
            alphas.append(torch.stack(arcs).logsumexp(dim=0))

        # The last blank skips exactly to the end of the utterance.
        every, batch, ends = torch.stack(alphas), torch.arange(acts.size(0)), []
        for frames, each in zip(self.durations, skip):
            if frames:
                at = (act_lens - frames).clamp(min=0) + label_lens
                end = (every + blank + each)[at, batch, label_lens]
                ends.append(end.where(act_lens >= frames, IMPOSSIBLE))
        return -torch.stack(ends).logsumexp(dim=0)
