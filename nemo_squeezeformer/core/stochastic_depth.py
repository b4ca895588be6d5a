"""Stochastic depth: training leaves out whole layers at random (arXiv 2102.03216)."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_probabilities(n_layers: int, highest: float, mode: str, start_layer: int) -> list[float]:
    """Return, for each layer, the probability that a training step leaves out the layer.

    Args:
        n_layers: Number of layers.
        highest: The probability of the last layer, in [0, 1).
        mode: ``uniform``: the probability of all layers after ``start_layer`` is ``highest``. ``linear``: the
            probability grows from layer to layer up to ``highest``.
        start_layer: Number of layers at the start that are never left out.

    Raises:
        ValueError: ``highest`` is not in [0, 1), ``start_layer`` is not in [1, ``n_layers``], or the mode is unknown.
    """
    if not 0.0 <= highest < 1.0:
        raise ValueError(f"stochastic_depth_drop_prob={highest} must be at least 0 (off) and below 1; 0.1 is common")
    if not 1 <= start_layer <= n_layers:
        raise ValueError(
            f"stochastic_depth_start_layer={start_layer} must be 1 to n_layers={n_layers}: it is the number "
            "of layers that are never left out"
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
    """Return the ``output`` of a layer for the input ``x``, or ``x`` if the layer is left out.

    If the layer is not left out, the difference between ``output`` and ``x`` is scaled up, so that the expected result
    is ``output``. If the layer is left out, the weights of the layer get zero gradients. Therefore all processes of a
    distributed training have gradients for the same weights.
    """
    # The host draws the number, so that no layer waits for a GPU.
    if torch.rand(1, device="cpu") < probability:
        return output * 0.0 + x
    return (output - x) / (1.0 - probability) + x
