"""Relative errors of outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def relative(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> tuple[float, float]:
    """Return the relative errors.

    The largest error is relative to the largest expected value. The RMS error is relative to the RMS of the expected
    values.
    """
    a, b = (np.concatenate([x.numpy().ravel() for x in xs]) for xs in (found, expected))
    error = a - b
    return float(abs(error).max() / abs(b).max()), float(np.sqrt((error**2).mean() / (b**2).mean()))
