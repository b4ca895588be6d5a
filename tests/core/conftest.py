"""What tests of the core are given; nothing here imports NeMo."""

from __future__ import annotations

import pytest
import torch

from nemo_squeezeformer.core.cpu import linear as fast_linear


@pytest.fixture
def onednn(monkeypatch) -> None:
    """Products go through oneDNN where there is one, even if it is not the faster here."""
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(fast_linear, "is_onednn_faster", lambda: there)
