"""The consistency term of CR-CTC: the predictions for two views of an utterance have to agree (arXiv 2410.05101)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div


def consistency_of_rows(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """(2 B, T, V) -> (2 B,). Return the divergence of each row from the other view of the same utterance.

    Rows 0 to B - 1 are the first views of B utterances, and rows B to 2 B - 1 are their second views. The value of a
    row is the sum of KL(sg(q) || p) over the frames of the row, where p is the distribution of the row, q is the
    distribution of the other view, and sg stops the gradient. The mean over the rows is the mean over the utterances
    of the paper's L_CR = 1/2 sum_t [KL(sg(p_b) || p_a) + KL(sg(p_a) || p_b)] (section 3.2). Like the CTC loss of an
    utterance, L_CR is a sum over its frames and not a mean. The sums are computed in float32.

    Args:
        log_probs: log-probabilities of the CTC decoder.
        lengths: number of frames of each row. Later frames are padding.
    """
    log_probs = log_probs.float()
    other = log_probs.detach().roll(len(log_probs) // 2, dims=0)
    frames = kl_div(log_probs, other, reduction="none", log_target=True).sum(-1)  # (2 B, T)
    padding = torch.arange(frames.shape[1], device=frames.device) >= lengths.unsqueeze(1)
    return frames.masked_fill(padding, 0.0).sum(1)


def reduced(rows: Tensor, target_lengths: Tensor, reduction: str) -> Tensor:
    """(2 B,) -> (). Reduce the values of the rows as NeMo's ``CTCLoss`` reduces the losses of the rows.

    The weight of the consistency term then has the same meaning with every reduction.

    Args:
        target_lengths: number of tokens of each row.
        reduction: ``ctc_reduction`` of NeMo: ``mean_batch``, ``mean_volume``, ``mean`` or ``sum``.
    """
    if reduction == "mean_volume":
        return rows.sum() / target_lengths.sum()
    if reduction == "mean":
        return (rows / target_lengths.clamp(min=1)).mean()
    return rows.sum() if reduction == "sum" else rows.mean()
