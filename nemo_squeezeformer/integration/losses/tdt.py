"""The loss of a token-and-duration transducer (TDT, arXiv 2304.06795). NeMo has this loss only for CUDA."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nemo_squeezeformer.integration.losses.lattice import log_likelihood
from nemo_squeezeformer.integration.losses.log_probs import blank_and_labels
from nemo_squeezeformer.integration.losses.transducer import STEPS, costs, early, in_float32


class AntiDiagonalTDTLoss(nn.Module):
    """The loss of a transducer that predicts with each token the number of frames to skip, as NeMo's ``TDTLossNumba``.

    Args:
        blank: index of the blank, which is the number of other tokens.
        durations: numbers of frames that the transducer can skip.
        fastemit_lambda: weight of FastEmit (arXiv 2010.11148), which favors early tokens.
        clamp: limit of the absolute value of the gradient of the joint network. 0 and negative values mean no limit.
        sigma: subtracted from the log-probabilities of the tokens, which favors long skips.
        omega: probability that a call computes the loss of a transducer without durations.
    """

    reduction = None  # NeMo reduces the losses of the utterances

    def __init__(
        self,
        blank: int,
        durations: Sequence[int],
        fastemit_lambda: float = 0.0,
        clamp: float = 0.0,
        sigma: float = 0.0,
        omega: float = 0.0,
    ):
        super().__init__()
        self.blank, self.durations, self.fastemit_lambda = blank, tuple(durations), fastemit_lambda
        self.clamp, self.sigma, self.omega = clamp, sigma, omega

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """Return the loss of each utterance: acts (B, T, U + 1, V + durations) and labels (B, U) -> (B,).

        The backward pass can run only once.
        """
        count = len(self.durations)
        vocabulary, skips = in_float32(acts).split([acts.size(-1) - count, count], dim=-1)
        blanks, tokens = blank_and_labels(vocabulary, labels, self.blank, self.clamp)
        tokens = early(tokens, self.fastemit_lambda)
        if random.uniform(0, 1) < self.omega:  # the generator that NeMo uses
            scores, steps = torch.stack([blanks, tokens]), STEPS
        else:
            each = [*zip(self.durations, skips.log_softmax(dim=-1).unbind(-1), strict=True)]
            blank_arcs = {(frames, 0): blanks + skip - self.sigma for frames, skip in each if frames}
            token_arcs = {(frames, 1): tokens + skip - self.sigma for frames, skip in each}
            arcs = blank_arcs | token_arcs
            scores, steps = torch.stack([*arcs.values()]), tuple(arcs)
        return costs(log_likelihood(scores, steps, act_lens, label_lens), self.fastemit_lambda)
