"""Dropout (Srivastava et al. 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from .dispatch import dispatched, plain_module


@plain_module
class Dropout(nn.Dropout):
    """``nn.Dropout`` with a fast implementation for training on a CPU.

    The fast implementation draws random numbers four times as fast as ``nn.Dropout``. The random numbers are different.
    """

    @dispatched
    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape."""
        return super().forward(x)


def rate_of(dropout: nn.Dropout) -> float:
    """Return the probability that an element becomes zero: ``p`` in training, 0 in evaluation."""
    return dropout.p if dropout.training else 0.0
