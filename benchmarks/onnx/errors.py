"""How far outputs are from those that are expected, relative to these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def relative(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> tuple[float, float]:
    """The largest error by the largest value, and the root of the mean squares of both by one another."""
    a, b = (np.concatenate([x.numpy().ravel() for x in xs]) for xs in (found, expected))
    error = a - b
    return float(abs(error).max() / abs(b).max()), float(np.sqrt((error**2).mean() / (b**2).mean()))
