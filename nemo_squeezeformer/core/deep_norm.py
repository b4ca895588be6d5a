"""DeepNorm (Wang et al. 2022, arXiv 2203.00555): residual branches that start small and stay small.

A LayerNorm normalizes each sum of an input and the output of a module. In the network of the paper, the weight of the
module's output in this sum is 1. After a few steps with a high learning rate the outputs are larger than the inputs,
and the signal of the earlier modules is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .layer import SqueezeformerLayer

MODULES = 4  # modules of a layer; a layer of the article has two


def branch_weight(n_layers: int) -> float:
    """Return the weight of a module's output in the sum with the input of the module.

    The article multiplies the input by the inverse of this weight. The LayerNorm makes both forms equal.
    """
    return (MODULES * n_layers) ** -0.25


@torch.no_grad()
def start_small(layers: Sequence[SqueezeformerLayer]) -> None:
    """Multiply the initial weights of the last operation of each module by the article's beta.

    The article also multiplies the weights of earlier operations.
    """
    beta = (4 * MODULES * len(layers)) ** -0.25
    for layer in layers:
        for last in layer.last_operations():
            last.weight.mul_(beta)
