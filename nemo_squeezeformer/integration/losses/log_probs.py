"""The log-probabilities that a transducer loss needs from the outputs of the joint network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def blank_and_labels(acts: Tensor, labels: Tensor, blank: int, clamp: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the blank and of the next label at each node, both (B, T, U + 1).

    The last column of the labels is unused, because no label follows.

    Args:
        acts: outputs of the joint network (B, T, U + 1, V), with or without log_softmax.
        labels: next labels (B, U).
        blank: index of the blank.
        clamp: limit of the absolute value of the gradient of ``acts``. 0 means no limit.
    """
    blanks: Tensor
    tokens: Tensor
    blanks, tokens = _BlankAndLabels.apply(acts, labels, blank, clamp)
    return blanks, tokens


class _BlankAndLabels(torch.autograd.Function):
    """The joint network has by far the largest output of a transducer, so only one tensor of its size is computed.

    The tensor holds the log-probabilities in the forward pass, and the gradient in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, acts: Tensor, labels: Tensor, blank: int, clamp: float) -> tuple[Tensor, Tensor]:
        log_probs = acts.log_softmax(dim=-1)
        last = labels.new_zeros(len(labels), 1)
        index = torch.cat([labels, last], dim=1)[:, None, :, None].expand(-1, acts.size(1), -1, 1)
        ctx.log_probs, ctx.index, ctx.blank, ctx.clamp = log_probs, index, blank, clamp
        return log_probs[..., blank].clone(), log_probs.gather(-1, index)[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, blanks: Tensor, tokens: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.log_probs is None:
            raise RuntimeError("the backward pass of this loss can run only once; compute the loss again")
        gradient, ctx.log_probs = ctx.log_probs, None
        gradient.exp_().mul_((-(blanks + tokens))[..., None])
        gradient[..., ctx.blank] += blanks
        gradient.scatter_add_(-1, ctx.index, tokens[..., None])
        if ctx.clamp > 0.0:
            gradient.clamp_(-ctx.clamp, ctx.clamp)
        return gradient, None, None, None
