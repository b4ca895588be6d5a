"""Fixtures for the tests of the core. This file does not import NeMo."""

from __future__ import annotations

import pytest
import torch

from nemo_squeezeformer.core.cpu import linear as fast_linear


@pytest.fixture
def onednn(monkeypatch) -> None:
    """Make linear layers use oneDNN if PyTorch has it, even if it is not the faster library on this machine."""
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(fast_linear, "is_onednn_faster", lambda: there)
