"""What a measurement was made on and with, and the fastest this machine multiplies matrices."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import processor
from speed_time import wait_for
from torch import Tensor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def conditions(size: str, device: str) -> dict[str, str]:
    """What must be the same for all figures of a file."""
    import nemo

    chosen = sorted((name, value) for name, value in os.environ.items() if name.startswith("MALLOC_"))
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name(),
        "versions": f"NeMo {nemo.__version__}, torch {torch.__version__}",
        "allocator": " ".join(f"{name}={value}" for name, value in chosen) or "as the system has it",
        "size": f"Size {size}",
    }


def commit() -> str:
    """The commit of the measured code, and whether it had changed since; empty outside a clone."""
    root = Path(__file__).parents[1]

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", "nemo_squeezeformer", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}, changed since" if changed else head


def products(n: int, precision: str, device: str) -> dict[str, Callable[[], Tensor]]:
    """The ways to multiply matrices of n x n here."""
    a, b = (torch.randn(n, n, device=device, dtype=TYPES[precision]) for _ in range(2))
    ways: dict[str, Callable[[], Tensor]] = {"MKL" if device == "cpu" else "CUDA": lambda: a @ b}
    if device == "cpu" and torch.backends.mkldnn.is_available():
        ways["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return ways


@torch.inference_mode()
def peak_gflops(precision: str = "fp32", device: str = "cpu", n: int = 2048, repeats: int = 7) -> dict[str, float]:
    """GFLOP/s of the best of ``repeats`` large products, each way, with the threads at hand."""
    best = {}
    for name, product in products(n, precision, device).items():
        took = []
        for _ in range(repeats):
            wait_for(device)
            began = time.perf_counter()
            product()
            wait_for(device)
            took.append(time.perf_counter() - began)
        best[name] = round(2 * n**3 / min(took) / 1e9, 1)
    return best
