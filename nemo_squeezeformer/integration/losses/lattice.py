"""The total probability of all paths through the lattice of a transducer, computed by anti-diagonals.

The lattice of an utterance with T frames and U tokens has a node for each frame t and number of tokens u. A path starts
at node (0, 0) and ends at node (T, U). An arc skips a fixed number of frames and adds one token or no token. All nodes
of an anti-diagonal have the same t + u. An anti-diagonal depends only on earlier anti-diagonals, so all nodes of an
anti-diagonal are computed at once, for all utterances of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Step = tuple[int, int]  # the numbers of frames and of tokens by which an arc advances; one of them is above zero


def log_likelihood(scores: Tensor, steps: Sequence[Step], frames: Tensor, tokens: Tensor) -> Tensor:
    """Return the logarithm of the sum of the probabilities of all paths: (A, B, T, U + 1) -> (B,).

    The result is -inf for an utterance without a path.

    Args:
        scores: log-probabilities of the A arcs of each node. Arcs that leave the lattice of an utterance do not count.
        steps: the step of each arc.
        frames: numbers of frames (B,), from 1 to T.
        tokens: numbers of tokens (B,), from 0 to U.
    """
    result: Tensor = _LogLikelihood.apply(scores, steps, frames, tokens)
    return result


class _LogLikelihood(torch.autograd.Function):
    """The forward-backward algorithm. The gradient of a score is the probability that a path has the arc."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, steps: Sequence[Step], frames: Tensor, tokens: Tensor) -> Tensor:
        _, b, t, u = scores.shape
        skewed = scores.new_full((t + u, len(scores), b, u), -inf)  # row d has the nodes with t + u = d
        arcs = scores.masked_fill(~_inside(steps, frames, tokens, t, u), -inf)
        _by_frames(skewed, t).copy_(arcs)
        alphas = _alphas(skewed, steps)
        end = frames + tokens, torch.arange(b, device=scores.device), tokens
        total = alphas[end]
        if ctx.needs_input_grad[0]:
            betas = torch.full_like(alphas, -inf)
            betas[end] = 0.0
            arcs = _to_the_end(skewed, steps, betas)
            arcs.add_(alphas[:, None]).sub_(total[:, None]).exp_()
            arcs.masked_fill_(total.isneginf()[:, None], 0.0)  # an utterance without a path has no gradient
            ctx.save_for_backward(_by_frames(arcs, t))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (posteriors,) = ctx.saved_tensors
        return posteriors * gradient[:, None, None], None, None, None


def _inside(steps: Sequence[Step], frames: Tensor, tokens: Tensor, t: int, u: int) -> Tensor:
    """Return a mask (A, B, T, U + 1) that is True at the arcs that stay in the lattice of the utterance.

    Only an arc without a token may reach the end.
    """
    device = frames.device
    left = frames[:, None, None] - torch.arange(t, device=device)[:, None]  # (B, T, 1) frames until the end
    missing = tokens[:, None, None] - torch.arange(u, device=device)  # (B, 1, U + 1) tokens until the end
    return torch.stack(
        [
            (left > skipped) & (missing > 0)
            if token
            else (left > skipped) & (missing >= 0) | (left == skipped) & (missing == 0)
            for skipped, token in steps
        ]
    )


def _by_frames(skewed: Tensor, t: int) -> Tensor:
    """Return a view of anti-diagonals by frames: (T + U + 1, A, B, U + 1) -> (A, B, T, U + 1)."""
    _, a, b, u = skewed.shape
    row, arc, utterance, column = skewed.stride()
    return skewed.as_strided((a, b, t, u), (arc, utterance, row, row + column))


def _alphas(skewed: Tensor, steps: Sequence[Step]) -> Tensor:
    """Return the log-probabilities of all paths from the start to each node: (D, A, B, U + 1) -> (D, B, U + 1)."""
    d, a, b, u = skewed.shape
    reach = max(map(sum, steps))
    # Paths that leave a node by an arc. The first rows and the first column are outside of the lattice.
    leaving = skewed.new_full((reach + d, a, b, 1 + u), -inf)
    index = torch.stack(
        [_places(leaving, reach - sum(step), arc, 1 - step[1]) for arc, step in enumerate(steps)]
    ).flatten()
    alphas = skewed.new_full((d, b, u), -inf)
    alphas[0, :, 0] = 0.0
    for row in range(d):
        if row:
            arriving = leaving[row : row + reach].view(-1).index_select(0, index).view(a, b, u)
            torch.logsumexp(arriving, 0, out=alphas[row])
        torch.add(skewed[row], alphas[row], out=leaving[reach + row, :, :, 1:])
    return alphas


def _to_the_end(skewed: Tensor, steps: Sequence[Step], betas: Tensor) -> Tensor:
    """Return the log-probabilities of all paths to the end that begin with an arc: (D, A, B, U + 1) -> the same shape.

    Args:
        betas: (D, B, U + 1), 0 at the ends and -inf at all other nodes.
    """
    d, a, b, u = skewed.shape
    reach = max(map(sum, steps))
    # The last rows and the last column are outside of the lattice.
    after = skewed.new_full((d + reach, 1, b, u + 1), -inf)
    after[:d, 0, :, :u] = betas
    index = torch.stack([_places(after, sum(step) - 1, 0, step[1]) for step in steps]).flatten()
    paths = torch.empty_like(skewed)
    for row in range(d - 1, -1, -1):
        found = after[row + 1 : row + 1 + reach].view(-1).index_select(0, index).view(a, b, u)
        torch.add(found, skewed[row], out=paths[row])
        node = after[row, 0, :, :u]
        torch.maximum(node, paths[row].logsumexp(0), out=node)  # no arc leaves the end
    return paths


def _places(rows: Tensor, row: int, arc: int, column: int) -> Tensor:
    """Return the places of U + 1 columns from ``column`` on, in the flattened ``rows`` (R, A, B, U + 2): (B, U + 1)."""
    _, a, b, u = rows.shape
    columns = torch.arange(u - 1, device=rows.device) + column
    return ((row * a + arc) * b + torch.arange(b, device=rows.device)[:, None]) * u + columns
