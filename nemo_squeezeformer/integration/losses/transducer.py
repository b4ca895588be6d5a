"""The transducer loss (Graves 2012, arXiv 1211.3711) without a loop over the nodes of the lattice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemo_squeezeformer.integration.losses.lattice import Step, log_likelihood
from nemo_squeezeformer.integration.losses.log_probs import blank_and_labels

STEPS: tuple[Step, ...] = ((1, 0), (0, 1))  # the blank and the token


class AntiDiagonalTransducerLoss(nn.Module):
    """The transducer loss, equal to NeMo's ``RNNTLossNumba`` on a CPU.

    Args:
        blank: index of the blank.
        fastemit_lambda: weight of FastEmit (arXiv 2010.11148), which favors early tokens.
        clamp: limit of the absolute value of the gradient of the joint network. 0 and negative values mean no limit.
    """

    reduction = None  # NeMo reduces the losses of the utterances

    def __init__(self, blank: int, fastemit_lambda: float = 0.0, clamp: float = 0.0):
        super().__init__()
        self.blank, self.fastemit_lambda, self.clamp = blank, fastemit_lambda, clamp

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """Return the loss of each utterance: acts (B, T, U + 1, V) and labels (B, U) -> (B,).

        The backward pass can run only once.
        """
        acts = in_float32(acts)
        blanks, tokens = blank_and_labels(acts, labels, self.blank, self.clamp)
        scores = torch.stack([blanks, early(tokens, self.fastemit_lambda)])
        return costs(log_likelihood(scores, STEPS, act_lens, label_lens), self.fastemit_lambda)


def in_float32(acts: Tensor) -> Tensor:
    """Return float32 numbers in place of half-precision numbers."""
    return acts.float() if acts.dtype in (torch.float16, torch.bfloat16) else acts


def early(tokens: Tensor, weight: float) -> Tensor:
    """Return the same log-probabilities with gradients that are 1 + ``weight`` times as large, as FastEmit needs."""
    return tokens + weight * (tokens - tokens.detach()) if weight else tokens


def costs(log_likelihoods: Tensor, weight: float) -> Tensor:
    """Return the losses with the value that NeMo reports for FastEmit, 1 + ``weight`` times as large."""
    return -log_likelihoods - weight * log_likelihoods.detach() if weight else -log_likelihoods
