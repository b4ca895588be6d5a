"""Stochastic depth: in training, leave out the branch of a whole layer now and then (arXiv 2102.03216)."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_probabilities(n_layers: int, highest: float, mode: str, start_layer: int) -> list[float]:
    """How likely each layer is to be left out: never the first ``start_layer`` ones.

    From there on, the probability is ``highest`` throughout (``uniform``) or grows to it with depth (``linear``).

    Raises:
        ValueError: for a probability outside [0, 1), a layer that does not exist, or an unknown mode.
    """
    if not 0.0 <= highest < 1.0:
        raise ValueError(f"stochastic_depth_drop_prob={highest} must be at least 0 (off) and below 1; 0.1 is usual")
    if not 1 <= start_layer <= n_layers:
        raise ValueError(
            f"stochastic_depth_start_layer={start_layer} must be 1 to n_layers={n_layers}: so many layers always run"
        )
    after = n_layers - start_layer
    probabilities = {
        "linear": [layer / after * highest for layer in range(1, after + 1)],
        "uniform": [highest] * after,
    }
    if mode not in probabilities:
        raise ValueError(f"stochastic_depth_mode={mode!r}: expected 'linear' or 'uniform'")
    return [0.0] * start_layer + probabilities[mode]


def drop_layer(output: Tensor, x: Tensor, probability: float) -> Tensor:
    """The ``output`` of a layer at ``x``, or ``x`` itself; what the layer added is scaled up to keep its expectation.

    A layer that is left out has run all the same, so that each process of a distributed training gets gradients, of
    zero here, for the same weights.
    """
    if torch.rand(1) < probability:
        return output * 0.0 + x
    return (output - x) / (1.0 - probability) + x
