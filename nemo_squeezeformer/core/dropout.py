"""Dropout (Srivastava et al. 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from .dispatch import dispatched, plain_module


@plain_module
class Dropout(nn.Dropout):
    """``nn.Dropout``, but that in training on a CPU it draws other random numbers, four times as fast."""

    @property
    def rate(self) -> float:
        """How likely an element is left out: never, in evaluation."""
        return self.p if self.training else 0.0

    @dispatched
    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)"""
        return super().forward(x)
