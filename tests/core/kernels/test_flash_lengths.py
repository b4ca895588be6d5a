"""Tests of flash attention by lengths, with a kernel for CPUs in place of PyTorch's kernel for GPUs.

The kernel for CPUs is written from the documentation of ``torch.nn.attention.varlen``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.kernel import Operands, PlainKernel
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels import flash_lengths
from nemo_squeezeformer.core.kernels.flash_lengths import boundaries, by_lengths

varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no varlen_attn")
if not flash_lengths.has_windows():
    pytest.skip("varlen_attn of this PyTorch has no windows", allow_module_level=True)

CONTEXTS = [Context(), Context(9, 4), Context(-1, 3), Context(5, -1), Context(-1, 0), Context(0, 0), Context(40, 40)]
CALLS: list[list[int]] = []  # the boundaries of each call of the kernel


def sequences(ends: Tensor, *rows: Tensor) -> Iterator[list[Tensor]]:
    """Yield views of the rows of each sequence: (rows, H, d) -> (H, n, d)."""
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist()):
        yield [x[start:end].transpose(0, 1) for x in rows]


def weights(q: Tensor, k: Tensor, scale: float, window: list[int], causal: bool) -> Tensor:
    """Return the attention weights of a sequence (H, n, n). Negative sides of the window are unlimited."""
    n, (left, right) = q.size(1), window
    distance = torch.arange(n)[:, None] - torch.arange(n)  # of a key before its query
    unseen = torch.zeros_like(distance, dtype=torch.bool)
    if left >= 0:
        unseen |= distance > left
    if right >= 0 or causal:
        unseen |= distance < -max(right, 0)
    return (q @ k.transpose(1, 2) * scale).masked_fill(unseen, -torch.inf).softmax(dim=-1)


@varlen._varlen_attn.register_kernel("cpu")
def _forward(q, k, v, ends, keys, max_q, max_k, is_causal=False, scale=None, window_size=None, *others):
    assert torch.equal(ends, keys) and ends.dtype == torch.int32 and not any(others)
    assert int(ends.diff().max()) <= max_q and max_q == max_k and q.size(-1) % 8 == 0 and q.size(-1) <= 256
    CALLS.append(ends.tolist())
    out = torch.empty_like(v)
    for to, query, key, value in sequences(ends, out, q, k, v):
        to.copy_(weights(query, key, scale, window_size, is_causal) @ value)
    return out, torch.empty(q.size(1), q.size(0)), torch.zeros(2, dtype=torch.uint64)


@varlen._varlen_attn_backward.register_kernel("cpu")
def _backward(grad, q, k, v, out, lse, ends, keys, max_q, max_k, is_causal, rng, scale=None, window_size=None):
    grads = [torch.empty_like(x) for x in (q, k, v)]
    for to_q, to_k, to_v, g, query, key, value in sequences(ends, *grads, grad, q, k, v):
        used = weights(query, key, scale, window_size, is_causal)
        of_weights = g @ value.transpose(1, 2)
        scores = scale * used * (of_weights - (used * of_weights).sum(-1, keepdim=True))
        to_q.copy_(scores @ key)
        to_k.copy_(scores.transpose(1, 2) @ query)
        to_v.copy_(used.transpose(1, 2) @ g)
    return tuple(grads)


def inputs(t: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(t)
    return [torch.randn(3, 2, t, d, generator=generator, dtype=torch.double).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("d", [8, 9])
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_outputs_and_gradients_equal_the_reference_implementation(context, d):
    for t in (1, 2, 30):
        for lengths in ([t, max(t // 2, 1), 0], [t, t, t]):
            frames, given = Frames.of(torch.tensor(lengths), t, context), inputs(t, d)
            ours = by_lengths(*given, frames)
            theirs = PlainKernel()(Operands(*given), frames, nn.Dropout(0.0))
            assert_close(ours, theirs)
            upstream = torch.randn_like(theirs)
            found, expected = (torch.autograd.grad(y, given, upstream) for y in (ours, theirs))
            for a, b in zip(found, expected, strict=True):
                assert_close(a, b)


def test_another_window_is_found():
    frames, given = Frames.of(torch.tensor([30, 9, 4]), 30, Context(9, 4)), inputs(30, 8)
    expected = PlainKernel()(Operands(*given), frames, nn.Dropout(0.0))
    for window in (Context(10, 4), Context(9, 3)):
        other = Frames.of(torch.tensor([30, 9, 4]), 30, window)
        assert (by_lengths(*given, other) - expected).abs().max() > 0.01


def test_each_utterance_has_its_frames_and_its_padding_as_two_sequences():
    assert boundaries(torch.tensor([5, 0, 2, 9]), 5).tolist() == [0, 5, 5, 5, 10, 12, 15, 20, 20]
    CALLS.clear()
    by_lengths(*inputs(4, 8), Frames.of(torch.tensor([4, 1, 0]), 4, Context()))
    assert CALLS == [[0, 4, 4, 5, 8, 8, 12]]


def test_only_operands_on_a_new_gpu_in_low_precision_with_heads_up_to_192_use_flash(monkeypatch):
    monkeypatch.setattr(flash_lengths, "_is_new", lambda device: True)

    class OnGPU:
        def __init__(self, dtype: torch.dtype, d: int, device: str = "cuda:0"):
            self.dtype, self.device, self.shape = dtype, torch.device(device), (1, 1, 1, d)

        def size(self, at: int) -> int:
            return self.shape[at]

    for dtype in (torch.float16, torch.bfloat16):
        assert flash_lengths.has_flash(OnGPU(dtype, 192)) and flash_lengths.has_flash(OnGPU(dtype, 49))
        assert not flash_lengths.has_flash(OnGPU(dtype, 193)) and not flash_lengths.has_flash(OnGPU(dtype, 8, "cpu"))
    assert not flash_lengths.has_flash(OnGPU(torch.float32, 8))
