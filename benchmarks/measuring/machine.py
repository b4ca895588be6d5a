"""The machine and the versions of a measurement."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def processor() -> str:
    """Return the name of the processor that the system reports."""
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
    """Return the settings of glibc's allocator in the environment, as ``NAME=value``."""
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")]


def conditions(size: str, device: str) -> dict[str, str]:
    """Return the conditions that must be equal for all measurements of a file."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name(),
        "versions": versions(),
        "allocator": " ".join(allocator()) or "as the system has it",
        "size": f"Size {size}",
    }


def commit() -> str:
    """Return the commit of the measured code, with a note if files have changed since. Outside a clone it is empty."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", "nemo_squeezeformer", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}, changed since" if changed else head
