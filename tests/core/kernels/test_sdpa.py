"""Tests of ``attention: sdpa`` in low precision: gradients of positions lose no more than in plain attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.gpu_attention.forms import EfficientKernel, FusedArithmetic, PlainOnGPU
from benchmarks.gpu_attention.precision import Case, errors
from nemo_squeezeformer.core.attention.kernel import Operands
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.sdpa import SDPA
from tests.samples.encoders import features, small_encoder

KEEP = nn.Dropout(0.0)


def operands(t: int = 9, positions: bool = True) -> Operands:
    torch.manual_seed(0)
    content, k, v, position = (torch.randn(2, 3, t, 7, requires_grad=True) for _ in range(4))
    p = torch.randn(1, 3, 2 * t - 1, 7, requires_grad=True)
    return Operands(content, k, v, position, p) if positions else Operands(content, k, v)


class Recorded(SDPA):
    """The kernel, with the dtypes of the calls of PyTorch's function and with the state of autocast in these calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.dtype, bool]] = []

    def fused(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float = 0.0) -> Tensor:
        same = {x.dtype for x in (q, k, v, bias) if x is not None}
        self.calls.append((same.pop(), torch.is_autocast_enabled("cpu")))
        assert not same
        return super().fused(q, k, v, bias, rate)


@pytest.mark.parametrize("common", [3.0, 30.0])
def test_gradients_of_positions_lose_no_more_than_in_plain_attention(common):
    """The values of the keys have a common part. The arithmetic is the arithmetic of a fused kernel on a GPU.

    The control is the fused kernel with operands in bfloat16.
    """
    lost = errors(Case(100, 1.0, common), seeds=2)
    plain, control = lost["plain"], lost["fused kernel, low precision"]
    assert control[0] > 2 * plain[0] > 0.01
    for form in ("`sdpa`: fused kernel, float32", "recomputed, whole batch"):
        assert lost[form][0] < plain[0] and lost[form][1] < plain[1], form


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_only_training_with_position_scores_is_computed_in_float32(precision):
    frames, kernel = Frames.of(torch.tensor([9, 5]), 9, Context()), Recorded()
    given = operands()
    low = Operands(*(x.to(precision) for x in given if isinstance(x, Tensor)))
    assert kernel(low, frames, KEEP).dtype == precision
    with torch.no_grad():
        assert kernel(low, frames, KEEP).dtype == precision
    assert kernel(Operands(*low[:3]), frames, KEEP).dtype == precision
    assert kernel.calls == [(torch.float32, False), (precision, False), (precision, False)]

    kernel.calls.clear()
    with torch.autocast("cpu", precision):
        attended = kernel(given, frames, KEEP)
    assert attended.dtype == precision and kernel.calls == [(torch.float32, False)]
    kernel(given, frames, KEEP)
    assert kernel.calls[1:] == [(torch.float32, False)]


def test_the_arithmetic_of_the_benchmark_is_attention():
    frames, given = Frames.of(torch.tensor([9, 5]), 9, Context()), operands()
    leaves = [x for x in given if isinstance(x, Tensor)]
    expected = SDPA()(given, frames, KEEP)
    grads = torch.autograd.grad(expected.tanh().sum(), leaves, retain_graph=True)
    for kernel in (FusedArithmetic(), FusedArithmetic(in_float32=False), PlainOnGPU()):
        attended = kernel(given, frames, KEEP)
        assert_close(attended, expected, atol=1e-5, rtol=0)
        for found, grad in zip(torch.autograd.grad(attended.tanh().sum(), leaves), grads, strict=True):
            assert_close(found, grad, atol=1e-5, rtol=1e-4)
    on_meta = Operands(*(x.detach().to("meta").requires_grad_() for x in leaves))
    frames = Frames.of(torch.empty(2, dtype=torch.long, device="meta"), 9, Context())
    assert EfficientKernel()(on_meta, frames, KEEP).shape == expected.shape


@pytest.mark.slow
def test_a_compiled_encoder_trains_in_low_precision_as_without_compilation(quick_compiler):
    x, lengths = features(2, 64), torch.tensor([64, 40])
    outputs = []
    for compiled in (False, True):
        encoder = small_encoder(attention="sdpa", n_layers=1, time_reduce_idx=None, compile=compiled).train()
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = encoder(x, lengths)
        y.float().square().mean().backward()
        outputs.append((y.detach().float(), encoder.layers[0].self_attn.linear_pos.weight.grad))
    for compiled, eager in zip(*outputs):
        assert float((compiled - eager).norm() / eager.norm()) < 0.03  # bfloat16
