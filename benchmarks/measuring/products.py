"""The highest speed at which this machine multiplies matrices."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measuring.timing import wait_for

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def products(n: int, precision: str, device: str) -> dict[str, Callable[[], Tensor]]:
    """Return a function for each library that multiplies two n x n matrices on ``device``."""
    a, b = (torch.randn(n, n, device=device, dtype=TYPES[precision]) for _ in range(2))
    ways: dict[str, Callable[[], Tensor]] = {"MKL" if device == "cpu" else "CUDA": lambda: a @ b}
    if device == "cpu" and torch.backends.mkldnn.is_available():
        ways["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return ways


@torch.inference_mode()
def peak_gflops(precision: str = "fp32", device: str = "cpu", n: int = 2048, repeats: int = 7) -> dict[str, float]:
    """Return the GFLOP/s of the fastest of ``repeats`` n x n products, for each library, with the current threads.

    A library that has no product of this precision for this processor is left out.
    """
    best = {}
    for name, product in products(n, precision, device).items():
        try:
            product()
        except RuntimeError:
            continue
        took = []
        for _ in range(repeats):
            wait_for(device)
            began = time.perf_counter()
            product()
            wait_for(device)
            took.append(time.perf_counter() - began)
        best[name] = round(2 * n**3 / min(took) / 1e9, 1)
    return best
