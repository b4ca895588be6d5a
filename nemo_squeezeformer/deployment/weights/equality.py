"""Whether a plain model computes what the model computes that it is made from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nemo_squeezeformer.errors import UserError

LENGTHS = (203, 150)  # of two utterances of random features


def check_equal(plain: nn.Module, encoder: Any, head: Any) -> None:
    """Raises UserError unless ``plain`` gives for random features what ``encoder`` gives, or ``head`` after it.

    The same weights fit many settings. This sees what has no weights: attention windows, scaling, a temperature.
    """
    some: Tensor = next(encoder.parameters())
    feat_in: Any = getattr(plain, "encoder", plain).feat_in
    x = torch.randn(len(LENGTHS), feat_in, max(LENGTHS), generator=torch.Generator().manual_seed(0)).to(some)
    lengths = torch.tensor(LENGTHS, device=some.device)
    modules = [module for part in (encoder, head) if part is not None for module in part.modules()]
    training = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            # NeMo's take their arguments by name alone, and by other names.
            named = hasattr(encoder, "input_types")
            given = encoder(audio_signal=x, length=lengths) if named else encoder(x, lengths)
            expected = given[0] if head is None else head(encoder_output=given[0]).transpose(1, 2)
            found, found_lengths = plain(x, lengths)
            found = found if head is None else found.transpose(1, 2)
    finally:
        for module, was in zip(modules, training):
            module.training = was
    if found_lengths.tolist() != given[1].tolist():
        raise UserError(f"its settings would make {found_lengths.tolist()} frames where it makes {given[1].tolist()}")
    found, expected = _valid(found, found_lengths), _valid(expected, found_lengths)
    error = float((found - expected).norm() / expected.norm())
    if not error <= torch.finfo(some.dtype).eps ** 0.5:
        raise UserError(
            f"its settings and weights are not all that it is: outputs without NeMo would be off by {100 * error:.2g} %"
        )


def _valid(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, C, T) -> (sum of lengths, C) in float64, which loses nothing of any type"""
    return torch.cat([row[:, :length].T for row, length in zip(x.cpu().double(), lengths.tolist())])
