"""The device of the tests in this folder, from the option ``--device``. This file does not import NeMo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from tests.gpu import stand_in

NEEDS_CUDA = "needs a CUDA device"


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of the device. In float32, a GPU must not round the factors of products to 10 bits (TF32)."""
    name = request.config.getoption("--device")
    if name == "cuda":
        assert torch.cuda.is_available(), f"torch {torch.__version__} finds no CUDA device; use --device cpu"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if name == stand_in.NAME:
        with stand_in.stand_in():
            yield name
    else:
        yield name


@pytest.fixture
def without_waiting(device: str) -> Callable[[], AbstractContextManager[None]]:
    """Return a context that fails if the host waits for the device. On a CPU, skip the test."""
    if device == "cpu":
        pytest.skip(NEEDS_CUDA)
    return _no_waiting if device == "cuda" else _no_reads


@contextmanager
def _no_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _no_reads() -> Iterator[None]:
    stand_in.READS.clear()
    yield
    assert stand_in.READS == []
