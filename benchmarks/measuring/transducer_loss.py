"""The transducer loss for CPUs, without a loop over the nodes of the lattice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMPOSSIBLE = -1e30  # finite, because the gradient of impossible paths must be zero and not NaN


class AntiDiagonalTransducerLoss(nn.Module):
    """The transducer loss (Graves 2012, arXiv 1211.3711), computed for a whole anti-diagonal of the lattice at once."""

    reduction = None  # NeMo reduces the loss of the utterances

    def __init__(self, blank: int):
        super().__init__()
        self.blank = blank

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """Return the loss of each utterance: acts `(B, T, U + 1, V)`, labels `(B, U)` -> `(B,)`."""
        t, u = acts.size(1), acts.size(2)
        log_probs = acts.log_softmax(dim=-1)
        blank = skewed(log_probs[..., self.blank])  # (T + U, B, U + 1)
        emit = skewed(log_probs[:, :, :-1].gather(-1, labels[:, None, :, None].expand(-1, t, -1, 1))[..., 0])

        start = torch.full_like(blank[0], IMPOSSIBLE)
        start[:, 0] = 0.0
        alphas = [start]
        for d in range(1, t + u - 1):
            stay = alphas[-1] + blank[d - 1]
            step = nn.functional.pad(alphas[-1][:, :-1] + emit[d - 1], (1, 0), value=IMPOSSIBLE)
            alphas.append(torch.logaddexp(stay, step))
        batch = torch.arange(acts.size(0))
        last = act_lens - 1 + label_lens
        return -(torch.stack(alphas)[last, batch, label_lens] + blank[last, batch, label_lens])


def skewed(x: Tensor) -> Tensor:
    """Rearrange the nodes by anti-diagonals: `(B, T, U) -> (T + U - 1, B, U)`. Row d has the nodes with t + u = d."""
    b, t, u = x.shape
    x = nn.functional.pad(x.transpose(1, 2), (0, u), value=IMPOSSIBLE)  # (B, U, T + U)
    # Each row is one step further right than the row before.
    x = x.flatten(1)[:, : u * (t + u - 1)].view(b, u, t + u - 1)
    return x.permute(2, 0, 1)
