"""Tests of attention in windows: it equals full attention under a band mask, also with global tokens."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core.attention.kernel import PlainKernel
from nemo_squeezeformer.core.attention.local_attention import LocalAttention
from nemo_squeezeformer.core.attention.multi_head import RelPositionAttention
from nemo_squeezeformer.core.attention.positions import LocalPositions, RelativePositions
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.window_blocks import WindowsInTurn
from nemo_squeezeformer.core.kernels.windows import AllWindows
from tests.samples.encoders import enliven, features, small_encoder, valid

LOCAL = {"self_attention_model": "rel_pos_local_attn"}


def local_attention(**settings) -> LocalAttention:
    torch.manual_seed(0)
    attention = LocalAttention(16, 4, **settings)
    enliven(attention)
    return attention


@pytest.fixture(params=[AllWindows, WindowsInTurn])
def form(request):
    """Return each implementation of the kernel in turn, without gradients."""
    with torch.no_grad():
        yield request.param()


@contextmanager
def patched(kernel: type[AllWindows], called: list):
    """Append the class ``kernel`` to ``called`` whenever it computes."""
    compute = kernel.__call__
    kernel.__call__ = lambda self, *args: (called.append(kernel), compute(self, *args))[1]
    try:
        yield
    finally:
        kernel.__call__ = compute


@pytest.mark.parametrize("left, right", [(4, 4), (3, 5), (5, 2), (0, 4), (4, 0), (40, 40), (1, 1)])
@pytest.mark.parametrize("t", [1, 2, 31, 32, 33, 64, 65, 150])
def test_windows_equal_full_attention_under_a_band_mask(form, t, left, right):
    local, full = local_attention(), RelPositionAttention(16, 4, kernel=PlainKernel())
    full.load_state_dict(local.state_dict())
    local.kernel = form
    x, lengths = torch.randn(3, t, 16), torch.tensor([t, max(1, t // 2), max(1, t - 3)])
    for rows in (3, 1):  # a batch with padding, and a single row without padding
        frames = Frames.of(lengths[:rows], t, Context(left, right))
        assert frames.padded == (rows == 3 and t > 1)
        output = local(x[:rows], frames, LocalPositions()(x, frames)[1])
        expected = full(x[:rows], frames, RelativePositions()(x, frames)[1])
        assert_close(output, expected, atol=1e-5, rtol=0)
    if t > 4 * (left + right):
        unlimited = full(x[:1], Frames.of(lengths[:1], t, Context()), RelativePositions()(x, frames)[1])
        assert (output - unlimited).abs().max() > 0.01


@pytest.mark.parametrize("tokens", [0, 2])
def test_inference_computes_windows_in_turn_and_training_computes_all_windows_together(tokens):
    local, chosen = local_attention(global_tokens=tokens, global_tokens_spacing=7), []
    x, lengths = torch.randn(2, 100, 16), torch.tensor([100, 60])
    frames = Frames.of(lengths, 100, Context(5, 3))
    positions = LocalPositions()(x, frames)[1]
    with patched(WindowsInTurn, chosen), patched(AllWindows, chosen):
        for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
            with context:
                chosen.append(local(x, frames, positions))
    outputs = [entry for entry in chosen if not isinstance(entry, type)]
    assert [entry for entry in chosen if isinstance(entry, type)] == [WindowsInTurn, WindowsInTurn, AllWindows]
    assert_close(outputs[0], outputs[2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [21, 40])
def test_gradients_equal_full_attention_under_a_band_mask(length):
    gradients = []
    for kind, positions in ((LocalAttention, LocalPositions()), (RelPositionAttention, RelativePositions())):
        attention = kind(16, 4)
        torch.manual_seed(0)
        x = torch.randn(2, 40, 16, requires_grad=True)
        attention.load_state_dict(local_attention().state_dict())
        frames = Frames.of(torch.tensor([40, length]), 40, Context(6, 3))
        attention(x, frames, positions(x, frames)[1]).square().sum().backward()
        gradients.append({name: p.grad for name, p in attention.named_parameters()} | {"x": x.grad})
    for name, expected in gradients[1].items():
        assert_close(gradients[0][name], expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)
    assert gradients[1]["linear_pos.weight"].abs().max() > 0.1


@pytest.mark.parametrize("size", [[4, 4], [5, 3], [8, 6], [1, 1]])
@pytest.mark.parametrize("unet", [{}, {"time_reduce_idx": 1}, {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]}])
def test_the_window_halves_inside_the_unet_as_the_mask_does(size, unet):
    local = small_encoder(att_context_size=size, **LOCAL, **unet)
    full = small_encoder(att_context_size=size, **unet)
    full.load_state_dict(local.state_dict())
    for total, gradients in itertools.product((1, 33, 150), (False, True)):
        x, lengths = features(2, total), torch.tensor([total, max(1, total - 20)])
        with torch.set_grad_enabled(gradients):
            (output, lengths), (expected, _) = local(x, lengths), full(x, lengths)
        assert_close(valid(output, lengths), valid(expected, lengths), atol=1e-5, rtol=0)


def with_tokens(attention: LocalAttention, x: torch.Tensor, lengths: torch.Tensor, context: Context) -> torch.Tensor:
    """Compute attention with global tokens frame by frame for one utterance: (1, T, D) -> (1, T, D)."""
    t, h, d = int(lengths[0]), 4, 4
    frames = Frames.of(lengths, x.size(1), context)
    positions = LocalPositions()(x, frames)[1]

    def heads(name: str) -> torch.Tensor:
        return getattr(attention, name)(x[0, :t]).view(t, h, d)

    q, k, v, p = heads("linear_q"), heads("linear_k"), heads("linear_v"), attention.linear_pos(positions).view(-1, h, d)
    separate = "global" if attention.global_attn_separate else "linear"
    gq, gk, gv = (heads(f"{separate}_{name}") for name in "qkv")
    tokens = [token for token in attention.tokens if token < t]
    rows = []
    for i in range(t):
        heads_of_i = []
        for a in range(h):
            if i in tokens:
                weights = torch.softmax(torch.stack([gq[i, a] @ gk[j, a] / math.sqrt(d) for j in range(t)]), 0)
                heads_of_i.append(weights @ gv[:, a])
                continue
            keys = [j for j in range(t) if -context.right <= i - j <= context.left]
            scores = [gq[i, a] @ gk[j, a] for j in tokens]
            scores += [
                (q[i, a] + attention.pos_bias_u[a]) @ k[j, a]
                + (q[i, a] + attention.pos_bias_v[a]) @ p[context.left - (i - j), a]
                for j in keys
            ]
            weights = torch.softmax(torch.stack(scores) / math.sqrt(d), 0)
            heads_of_i.append(weights @ v[tokens + keys, a])
        rows.append(torch.cat(heads_of_i))
    return attention.linear_out(torch.stack(rows))[None]


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("tokens, spacing", [(1, 1), (3, 4), (4, 1)])
def test_global_tokens_see_all_frames_and_all_frames_see_them(tokens, spacing, separate):
    attention = local_attention(global_tokens=tokens, global_tokens_spacing=spacing, global_attn_separate=separate)
    x, lengths = torch.randn(2, 40, 16), torch.tensor([37, 6])  # the shorter utterance has fewer tokens
    frames = Frames.of(lengths, 40, Context(3, 2))
    x[1, 6:] = 1e4  # padding must not become a token
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            output = attention(x, frames, LocalPositions()(x, frames)[1])
        for row, length in enumerate(lengths.tolist()):
            expected = with_tokens(attention, x[row : row + 1], lengths[row : row + 1], Context(3, 2))
            assert_close(output[row : row + 1, :length], expected, atol=1e-5, rtol=0)


def test_global_tokens_are_at_the_same_times_inside_the_unet():
    """Tokens at frames 0 and 20 of 40 ms are at frames 0 and 10 of 80 ms; distant frames see a change there."""
    settings = {"att_context_size": [2, 2], "n_layers": 3, "subsampling": None, "conv_kernel_size": 1}
    local = small_encoder(time_reduce_idx=1, **LOCAL, **settings)
    tokens = small_encoder(time_reduce_idx=1, **LOCAL, **settings, global_tokens=2, global_tokens_spacing=20)
    for encoder, far in ((local, False), (tokens, True)):
        encoder.layers[0].self_attn.tokens = encoder.layers[2].self_attn.tokens = []  # tokens only inside the U-Net
        x = features(1, 100)
        moved = x.clone()
        moved[..., 20] += 1.0
        assert ((encoder(x)[0] - encoder(moved)[0])[..., 90:].abs().max() > 1e-4) == far


def test_tokens_in_the_same_frame_count_once():
    for number, spacing, step in itertools.product((1, 2, 5), (1, 2, 3, 8), (1, 2, 4)):
        attention = local_attention(global_tokens=number, global_tokens_spacing=spacing)
        expected = sorted({token // step for token in attention.tokens})
        assert attention.frames_of_tokens(step, torch.device("cpu")).tolist() == expected


def test_memory_is_linear_in_the_length():
    attention = local_attention(global_tokens=1)

    def largest(t: int) -> int:
        x, sizes = torch.randn(1, t, 16), []
        frames = Frames.of(torch.tensor([t]), t, Context(16, 16))
        positions = LocalPositions()(x, frames)[1]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda saved: (sizes.append(saved.numel()), saved)[1], lambda x: x
        ):
            attention(x, frames, positions)
        return max(sizes)

    assert largest(2000) < 2.1 * largest(1000) and largest(2000) < 2000 * 2000


def test_local_attention_trains_exports_and_keeps_time_dynamic():
    encoder = small_encoder(n_layers=1, att_context_size=[6, 6], global_tokens=1, **LOCAL)
    encoder.train()(features(2, 60))[0].square().sum().backward()
    without = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert {name for name in without if "linear_k.bias" not in name} == set()
    encoder.eval()
    shapes = {"features": {2: torch.export.Dim.AUTO}, "lengths": None}
    with torch.no_grad():
        program = torch.export.export(encoder, (features(2, 400), torch.tensor([400, 380])), dynamic_shapes=shapes)
        for length in (333,):
            x, lengths = features(2, length), torch.tensor([length, length - 5])
            assert_close(program.module()(x, lengths)[0], encoder(x, lengths)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, r"att_context_size=\[-1, -1\]: self_attention_model='rel_pos_local_attn' needs a window"),
        ({"att_context_size": [0, 0]}, r"att_context_size=\[0, 0\]"),
        ({"att_context_size": [[8, 8], [8, -1]]}, r"att_context_size=\[8, -1\]"),
        ({"att_context_size": [8, 3], "att_context_style": "chunked_limited"}, "has windows, not chunks"),
        ({"att_context_size": [8, 8], "global_tokens": -1}, "global_tokens=-1"),
        ({"att_context_size": [8, 8], "global_tokens": 1, "global_tokens_spacing": 0}, "global_tokens_spacing=0"),
    ],
)
def test_settings_without_a_valid_window_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small_encoder(**LOCAL, **settings)
