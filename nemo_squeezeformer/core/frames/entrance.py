"""The checks of a batch that enters the encoder.

The checks of shapes run in all cases except ``torch.jit.trace``, which would warn. The checks of values run only on a
CPU and outside of recorded graphs. A check of a value would wait for a GPU. In a graph, the value would become
a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dispatch import in_graph, in_trace


def checked_features(features: Tensor, feat_in: int) -> Tensor:
    """Return ``features`` (B, F, T) in a form that autograd can store.

    Raises:
        ValueError: The shape is not (B, ``feat_in``, T).
    """
    if not in_trace() and (features.dim() != 3 or features.size(1) != feat_in):
        raise ValueError(
            f"features of shape {tuple(features.shape)}: expected (batch, {feat_in}, frames), because the encoder has "
            f"feat_in={feat_in}"
        )
    return recordable(features)


def recordable(x: Tensor) -> Tensor:
    """Return ``x``, or a copy if autograd records and cannot store ``x``, a tensor of ``torch.inference_mode``."""
    return x.clone() if torch.is_grad_enabled() and not in_graph() and x.is_inference() else x


def refuse_empty(x: Tensor, dim: int, what: str = "feature frames") -> None:
    """Raise ``ValueError`` if the batch ``x`` (B, ...) has no utterances, or no frames along ``dim``."""
    if not in_trace() and (x.size(0) == 0 or x.size(dim) == 0):
        raise ValueError(
            f"a batch of {x.size(0)} utterances with {x.size(dim)} {what}: the encoder needs at least 1 utterance and "
            "1 frame; leave out an empty batch"
        )


def checked_lengths(x: Tensor, lengths: Tensor | None, dim: int, what: str = "feature frames") -> Tensor:
    """Return ``lengths`` (B,) as int64. None means that all frames of ``x`` are valid.

    Args:
        x: A batch (B, ...) with frames along ``dim``.
        lengths: Number of valid frames of each utterance (B,).
        dim: Dimension of the frames in ``x``.
        what: Name of the frames, for error messages.

    Raises:
        ValueError: ``lengths`` has another number of utterances, or a length is not a whole number from 0 to the number
            of frames.
    """
    batch, t = x.size(0), x.size(dim)
    if lengths is None:
        return torch.full((batch,), t, device=x.device)
    if in_trace():
        return lengths.long()
    if lengths.dim() != 1 or lengths.size(0) != batch:
        raise ValueError(
            f"lengths of shape {tuple(lengths.shape)} for a batch of {batch} utterances: expected a length for each "
            f"utterance, shape ({batch},)"
        )
    if lengths.dtype == torch.bool:
        raise ValueError(f"lengths of dtype torch.bool: expected the number of {what} of each utterance, not a mask")
    if lengths.device.type == "cpu" and not in_graph():
        _check_values(lengths.tolist(), t, what)
    return lengths.long()


def _check_values(lengths: list[float], t: int, what: str) -> None:
    for utterance, length in enumerate(lengths):
        if not 0 <= length <= t:
            raise ValueError(
                f"length {length} of utterance {utterance} in a batch of {t} {what}: expected 0 to {t}, the number of "
                f"{what} of the utterance without padding"
            )
        if length != int(length):
            raise ValueError(
                f"length {length} of utterance {utterance} is not a whole number of {what}; multiply a relative length "
                f"by {t} and round it"
            )
