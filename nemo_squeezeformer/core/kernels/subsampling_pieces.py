"""The striding subsampling in pieces of time, for less memory and better use of the cache.

Each piece is computed only from the feature frames that the piece depends on. At 196 channels, the output of the first
convolution for five minutes of audio takes 470 MB. With pieces, the whole output never exists at once. Training does
not store the output either: the backward pass computes each piece again. On a CPU, computing a piece again takes no
longer than reading the piece from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.utils.checkpoint import checkpoint

from ..cpu.projections import TurnedProjection
from ..dispatch import implements, is_plain
from ..subsampling import DepthwiseStridingSubsampling, StridingSubsampling

FRAMES = 256  # number of feature frames of a piece for each CPU thread, so that the piece stays in the cache
# Number of elements of a piece after the first convolution on other devices, which are faster with few large kernels.
ELEMENTS = 2**28

Projection = Callable[[Tensor], Tensor]  # (B, C, T, F) -> (B, T, D)


def _is_whole(net: StridingSubsampling, x: Tensor, lengths: Tensor, state: Any, absent: Any) -> bool:
    """Return True if the input is a batch of whole utterances instead of chunks of a stream."""
    return type(net) in (StridingSubsampling, DepthwiseStridingSubsampling) and state is None and absent is None


@implements(StridingSubsampling.subsampled, when=_is_whole)
def subsample_in_pieces(
    net: StridingSubsampling, x: Tensor, lengths: Tensor, state: None, absent: None
) -> tuple[Tensor, Tensor]:
    """Subsample features: x (B, T, F), lengths (B,) -> (B, ceil(T / factor), D), (B,)."""
    parts = min(net.batch_parts, x.size(0))
    outputs = [in_pieces(net, x, lengths) for x, lengths in zip(x.tensor_split(parts), lengths.tensor_split(parts))]
    return torch.cat(outputs) if parts > 1 else outputs[0], net.halved(lengths)


def in_pieces(net: StridingSubsampling, x: Tensor, lengths: Tensor) -> Tensor:
    """Subsample features in pieces of time: x (B, T, F), lengths (B,) -> (B, ceil(T / factor), D)."""
    project, depth, endless = projection(net), len(net.stages), net.margins.endless
    t = net.margins.frames(x.size(1), depth)
    # On other devices, reading the lengths would wait for all earlier kernels.
    if x.device.type != "cpu":
        x = net.continued(x, lengths) if endless else x
        together = x.size(0) * net.channels * net.margins.widths(net.feat_in, 1)[1] * net.factor // 2
        return joined(in_steps(net, x[:, None], lengths, t, t, max(ELEMENTS // together, 1), project), t)
    step = max(FRAMES * torch.get_num_threads() // net.factor, 1)
    rows = []
    for row, length in zip(x, lengths.tolist()):
        row = net.continued(row[:length]) if endless else row[:length]
        channels_last = row[None, :, :, None].permute(0, 3, 1, 2)  # (1, 1, length, F)
        end = net.margins.frames(length, depth)
        rows.append(joined(in_steps(net, channels_last, None, end, t, step, project), t))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def in_steps(
    net: StridingSubsampling, x: Tensor, lengths: Tensor | None, end: int, t: int, step: int, project: Projection
) -> Iterator[Tensor]:
    """Yield the encoder frames of features (B, 1, T, F) in pieces (B, n, D), ``t`` frames in total.

    The first ``end`` frames are computed from the features, at most ``step`` frames at a time. With gradients, the
    first ``end`` frames are a single piece of the output. The frames from ``end`` to ``t - 1`` are the projection of
    zeros.
    """
    depth = len(net.stages)
    steps = [(first, min(first + step, end)) for first in range(0, end, step)]
    if not torch.is_grad_enabled():
        yield from (project(frames(net, x, lengths, depth, first, stop)) for first, stop in steps)
    elif steps:
        again = partial(checkpoint, in_float32, net, x, lengths, depth, use_reentrant=False, preserve_rng_state=False)
        pieces = [again(first, stop) for first, stop in steps]
        yield project(torch.cat(pieces, dim=2))  # one call, because the gradient of the weight is a large sum
    if end < t:
        zeros = x.new_zeros(x.size(0), net.channels, 1, net.margins.widths(net.feat_in, depth)[-1])
        yield project(zeros).expand(-1, t - end, -1)


def joined(pieces: Iterator[Tensor], t: int) -> Tensor:
    """Return the pieces as one tensor (B, t, D).

    Without gradients, each piece is copied into the result immediately. Otherwise many small pieces would fragment the
    memory.
    """
    if torch.is_grad_enabled():
        return torch.cat(list(pieces), dim=1)
    piece = next(pieces)
    whole, end = piece.new_empty(piece.size(0), t, piece.size(2)), piece.size(1)
    whole[:, :end] = piece
    for piece in pieces:
        start, end = end, end + piece.size(1)
        whole[:, start:end] = piece
    return whole


def in_float32(net: StridingSubsampling, x: Tensor, *given: Any) -> Tensor:
    """Call ``frames``. On a CPU, compute in the precision of the weights, without autocast.

    On a CPU, PyTorch computes gradients more slowly in bfloat16.
    """
    with torch.autocast("cpu", enabled=False):
        return frames(net, x.to(next(net.conv.parameters()).dtype) if x.device.type == "cpu" else x, *given)


def frames(net: StridingSubsampling, x: Tensor, lengths: Tensor | None, stage: int, first: int, stop: int) -> Tensor:
    """Return the frames ``first`` to ``stop`` - 1 after the first ``stage`` strided convolutions.

    Args:
        net: Subsampling with the convolutions.
        x: Features (B, 1, T, F).
        lengths: Number of valid feature frames (B,), or None if all T feature frames are valid.
        stage: Number of strided convolutions to apply.
        first: First frame to compute, at the frame rate after these convolutions.
        stop: Frame after the last frame to compute.

    Returns:
        The frames (B, C, stop - first, F / 2 ** stage).
    """
    if stage == 0:
        made = x[:, :, first:stop]
    else:
        # A kernel of size 3 with stride 2 sees the input frames start to end - 1.
        start, end = 2 * first - net.left, 2 * stop + 1 - net.left
        t = net.margins.frames(x.size(2), stage - 1)
        made = frames(net, x, lengths, stage - 1, max(start, 0), min(end, t))
        convolution, *others = net.stages[stage - 1]
        made = convolution(pad(made, (*net.beside, max(-start, 0), max(end - t, 0))))
        for module in others:
            made = pointwise(module, made)
    if lengths is None or (net.margins.endless and stage < len(net.stages)):
        return made
    valid = net.margins.frames(lengths, stage)[:, None, None, None]
    return made.masked_fill(torch.arange(first, stop, device=x.device)[:, None] >= valid, 0.0)


def pointwise(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module that computes each frame and each frequency separately: (B, C, T, F) -> (B, C, T, F).

    A plain convolution is computed as a matrix product.
    """
    if type(module) is not nn.Conv2d or not is_plain(module):
        return module(x)
    b, c, t, f = x.shape
    # reshape returns a view if x is channels last.
    x = linear(x.permute(0, 2, 3, 1).reshape(-1, c), module.weight[:, :, 0, 0], module.bias)
    return x.view(b, t, f, -1).permute(0, 3, 1, 2)


def projection(net: StridingSubsampling) -> Projection:
    """Return a function that applies ``net.out`` to (B, C, T, F) with the memory layout (B, T, F, C).

    Matrix products return this memory layout. The function permutes the weights instead of the activations.
    """
    out: nn.Module = net.out
    if isinstance(out, TurnedProjection):
        turned = out.channels_last
        return lambda x: turned(x.permute(0, 2, 3, 1).flatten(2))
    if type(out) is not nn.Linear or not is_plain(out):
        return lambda x: out(x.transpose(1, 2).flatten(2))
    weight = out.weight.view(out.out_features, net.channels, -1).transpose(1, 2).flatten(1)
    return lambda x: linear(x.permute(0, 2, 3, 1).flatten(2), weight, out.bias)
