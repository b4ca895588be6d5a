"""What a measurement was made on, and with which versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def processor() -> str:
    """The name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> str:
    import nemo

    return f"NeMo {nemo.__version__}, torch {torch.__version__}"


def allocator() -> list[str]:
    """The settings of glibc's allocator in the environment, as ``NAME=value``."""
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")]


def conditions(size: str, device: str) -> dict[str, str]:
    """What must be the same for all figures of a file."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name(),
        "versions": versions(),
        "allocator": " ".join(allocator()) or "as the system has it",
        "size": f"Size {size}",
    }


def commit() -> str:
    """The commit of the measured code, and whether it had changed since; empty outside a clone."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", "nemo_squeezeformer", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}, changed since" if changed else head
