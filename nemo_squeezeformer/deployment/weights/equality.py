"""The check that a plain model computes the outputs of the NeMo model from which the plain model is made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nemo_squeezeformer.errors import UserError

LENGTHS = (203, 150)  # lengths of two utterances of random features, in feature frames


def check_equal(plain: nn.Module, encoder: nn.Module, head: Any) -> None:
    """Raise UserError if ``plain`` returns other outputs for random features than ``encoder`` followed by ``head``.

    Loading the weights cannot find differences in settings without weights. This check finds differences in these
    settings, for example in the attention windows, the scaling or the temperature.

    Args:
        plain: Model to check.
        encoder: Encoder of the original model.
        head: Projection to tokens of the original model, or None if ``plain`` is only an encoder.
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
            # NeMo's encoders accept arguments only by name, and the names differ from the names in this package.
            named = hasattr(encoder, "input_types")
            given = encoder(audio_signal=x, length=lengths) if named else encoder(x, lengths)
            expected = given[0] if head is None else head(encoder_output=given[0]).transpose(1, 2)
            found, found_lengths = plain(x, lengths)
            found = found if head is None else found.transpose(1, 2)
    finally:
        for module, was in zip(modules, training):
            module.training = was
    if found_lengths.tolist() != given[1].tolist():
        raise UserError(
            f"with these settings, an encoder returns {found_lengths.tolist()} frames instead of {given[1].tolist()}"
        )
    found, expected = _valid(found, found_lengths), _valid(expected, found_lengths)
    error = float((found - expected).norm() / expected.norm())
    if not error <= torch.finfo(some.dtype).eps ** 0.5:
        raise UserError(
            "the settings and weights do not describe the whole model: without NeMo, the outputs would be off by "
            f"{100 * error:.2g} %"
        )


def _valid(x: Tensor, lengths: Tensor) -> Tensor:
    """Return the valid frames in float64, which represents the values of all dtypes exactly.

    Shapes: (B, C, T) -> (sum of lengths, C).
    """
    return torch.cat([row[:, :length].T for row, length in zip(x.cpu().double(), lengths.tolist())])
