"""The question whether this machine has a GPU for PyTorch, answered without the import of PyTorch.

The import of PyTorch takes seconds. A command that needs a GPU can therefore refuse a machine without a GPU at once.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path

DRIVER = "libcuda.so.1"


def without_cuda() -> str:
    """Return the reason why PyTorch has no CUDA device here, or "".

    If PyTorch is imported, PyTorch gives the answer. Otherwise, "" means that only PyTorch knows the answer.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        return "" if torch.cuda.is_available() else "PyTorch finds no CUDA device here"
    return _before_import()


def without_gpu() -> str:
    """Return the reason why PyTorch has no GPU here, or "". A Mac can have a GPU without CUDA."""
    return "" if sys.platform == "darwin" else without_cuda()


@cache
def _before_import() -> str:
    spec = importlib.util.find_spec("torch")  # finds the folder, and imports nothing
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    file = Path(folder or "nowhere") / "version.py"
    if not file.is_file():
        return ""
    written = file.read_text(encoding="utf-8")
    version, cuda, rocm = (_value(written, name) for name in ("__version__", "cuda", "hip"))
    if rocm:  # PyTorch shows GPUs of AMD as CUDA devices, and these GPUs have another driver
        return ""
    if version and not cuda:
        return f"the installed PyTorch {version} is built without CUDA"
    if cuda and sys.platform == "linux" and not _is_driver_there():
        return f"this machine has no CUDA driver ({DRIVER})"
    return ""


def _value(written: str, name: str) -> str:
    """Return the text that ``version.py`` of PyTorch assigns to a name, or "" for None."""
    found = re.search(rf"^{name}\b[^=\n]*=\s*'([^']*)'", written, flags=re.MULTILINE)
    return found[1] if found else ""


def _is_driver_there() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True
