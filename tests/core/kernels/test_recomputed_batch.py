"""Tests of the attention for training on a GPU: the gradients are exact, no scores are stored, and no value is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.cpu import random_masks
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels import query_blocks, recomputed_batch
from nemo_squeezeformer.core.kernels.choice import AUTO
from nemo_squeezeformer.core.kernels.recomputed_batch import RecomputedBatch
from tests.samples.encoders import small_encoder

KEEP = nn.Dropout(0.0)
CONTEXTS = [Context(), Context(6, 3), Context(8, 3, 4), Context(-1, 0, 4), Context(4, 0, 8)]


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(query_blocks, "LEAST", 7)
    monkeypatch.setattr(query_blocks, "MOST", 7)


def inputs(b: int, t: int, s: int, d: int = 5) -> list[Tensor]:
    """Return content, k, v, position and p in float64, with gradients."""
    generator = torch.Generator().manual_seed(100 * t + s)
    sizes = (b, 3, t, d), (b, 3, s, d), (b, 3, s, d), (b, 3, t, d), (1, 3, s + t - 1, d)
    return [torch.randn(size, generator=generator, dtype=torch.double).requires_grad_() for size in sizes]


def same(given: list[Tensor], frames: Frames, dropout: nn.Dropout = KEEP, written: nn.Dropout = KEEP) -> None:
    """Check that outputs and gradients equal the reference implementation."""
    torch.manual_seed(5)
    ours = RecomputedBatch()(Operands(*given), frames, dropout)
    torch.manual_seed(5)
    theirs = PlainKernel()(Operands(*given), frames, written)
    assert_close(ours, theirs)
    upstream = torch.randn_like(theirs)
    found, expected = (torch.autograd.grad(y, given, upstream) for y in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_outputs_and_gradients_equal_the_reference_implementation(context, small_blocks):
    for t in (1, 2, 17, 40):
        for lengths in ([t, max(t - 5, 1), 0], [t, t, t]):
            frames = Frames.of(torch.tensor(lengths), t, context)
            given = inputs(3, t, t)
            same(given, frames)
            same(given[:3], frames)  # without scores by position


@pytest.mark.parametrize("context", [Context(9, 4), Context(8, 0, 4)], ids=str)
def test_gradients_of_a_step_of_a_stream_are_exact(context, small_blocks):
    for t, past in ((4, 8), (16, 9), (3, 1)):
        cached, lengths = torch.tensor([past, past // 2]), torch.tensor([t, max(t - 2, 1)])
        same(inputs(2, t, past + t), Frames.of_stream(lengths, t, context, cached, past, t))


class Kept(nn.Dropout):
    """Dropout of attention weights (B, H, T, S) with the masks of ``RecomputedBatch`` for blocks of 7 queries."""

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        masks = [random_masks.kept(block, self.p, generator) for block in x.split(7, dim=2)]
        return x * torch.cat(masks, dim=2) / random_masks.kept_rate(self.p)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_backward_pass_drops_the_weights_that_the_forward_pass_dropped(rate, small_blocks):
    frames, given = Frames.of(torch.tensor([17, 12]), 17, Context()), inputs(2, 17, 17)
    same(given, frames, nn.Dropout(rate), Kept(rate))
    with pytest.raises(AssertionError):  # a control: other masks give another result
        same(given, frames, nn.Dropout(rate), nn.Dropout(rate))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_first_and_second_derivatives_are_exact(rate):
    frames, given = Frames.of(torch.tensor([4, 2]), 4, Context()), inputs(2, 4, 4, d=2)

    def attended(*given: Tensor) -> Tensor:
        torch.manual_seed(1)
        return RecomputedBatch()(Operands(*given), frames, nn.Dropout(rate)).tanh()

    assert torch.autograd.gradcheck(attended, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(attended, given, fast_mode=True)


@pytest.mark.parametrize("rate, evaluation", [(1.0, False), (1.0, True)])
def test_a_dropout_rate_of_one_drops_all_weights_in_training_only(rate, evaluation):
    frames, given = Frames.of(torch.tensor([9]), 9, Context()), inputs(1, 9, 9)
    attended = RecomputedBatch()(Operands(*given), frames, nn.Dropout(rate).train(not evaluation))
    assert bool(attended.any()) == evaluation


def test_bfloat16_loses_no_more_of_a_gradient_than_the_reference_implementation():
    """The values of the keys have a large common part, which makes the gradients of the scores small differences."""
    frames = Frames.of(torch.tensor([120, 90]), 120, Context())
    given = [x.detach().bfloat16().double().requires_grad_() for x in inputs(2, 120, 120, d=16)]
    with torch.no_grad():
        given[2].add_(8.0)
    upstream = torch.randn(2, 3, 120, 16, dtype=torch.double)
    exact = torch.autograd.grad(PlainKernel()(Operands(*given), frames, KEEP), given, upstream)
    lost: dict[str, list[float]] = {}
    for name, kernel in (("plain", PlainKernel()), ("ours", RecomputedBatch())):
        with torch.autocast("cpu", torch.bfloat16):
            leaves = [x.detach().float().requires_grad_() for x in given]
            attended = kernel(Operands(*leaves), frames, KEEP)
        found = torch.autograd.grad(attended, leaves, upstream.to(attended.dtype))
        lost[name] = [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact)]
    assert min(lost["plain"]) > 1e-3
    assert all(ours <= 1.1 * plain for ours, plain in zip(lost["ours"], lost["plain"])), lost


@pytest.mark.parametrize("attention", ["auto", "blocks"])
def test_training_on_another_device_reads_no_value_and_stores_no_scores(attention, monkeypatch):
    """Tensors on the device ``meta`` have no values, so that reading a value raises an error."""
    calls: list[int] = []

    def counted(self: Any, operands: Operands, frames: Frames, dropout: nn.Dropout) -> Tensor:
        calls.append(operands.k.size(2))
        return RecomputedBatch.__call__(self, operands, frames, dropout)

    monkeypatch.setattr(AUTO, "elsewhere", type("Counted", (RecomputedBatch,), {"__call__": counted})())
    t, stored = 12_000, []

    def pack(x: Tensor) -> Tensor:
        stored.append(x.untyped_storage().nbytes())
        return x

    encoder = small_encoder(attention=attention, n_layers=2, time_reduce_idx=None, dropout_att=0.0).train().to("meta")
    x, lengths = torch.empty(2, 20, t, device="meta"), torch.empty(2, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y, _ = encoder(x, lengths)
        y.sum().backward()
    frames = y.size(2)
    assert calls == [frames, frames]
    assert 0 < max(stored) < frames * frames  # bytes; the scores of a head are 4 * frames^2 bytes
    assert all(p.grad is not None for name, p in encoder.named_parameters() if "self_attn" in name)


def test_a_seed_is_drawn_on_the_cpu(monkeypatch):
    """A generator of the GPU gets its seed from the CPU. Otherwise, the host would wait for the GPU."""
    seeds: list[int] = []

    def generator(x: Tensor, seed: int, rate: float) -> torch.Generator:
        seeds.append(seed)
        return torch.Generator().manual_seed(seed)

    monkeypatch.setattr(recomputed_batch, "_generator", generator)
    frames = Frames.of(torch.empty(1, dtype=torch.long, device="meta"), 9, Context())
    given = [x.detach().to("meta").requires_grad_() for x in inputs(1, 9, 9)]
    monkeypatch.setattr(recomputed_batch, "kept", lambda x, rate, generator: torch.ones_like(x, dtype=torch.uint8))
    for _ in range(2):
        RecomputedBatch()(Operands(*given), frames, nn.Dropout(0.5)).sum().backward()
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
