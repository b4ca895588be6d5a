"""Tests of caches: the conversion of a streaming state to NeMo's stacked tensors and back, without loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from nemo_squeezeformer.core.frames.state import EncoderState
from nemo_squeezeformer.integration.caches import Caches
from tests.samples.encoders import features, small_encoder

UNETS: dict[str, dict[str, Any]] = {
    "no U-Net": {},
    "one": {"time_reduce_idx": 1},
    "nested": {"time_reduce_idx": [0, 1], "time_recovery_idx": [3, 2]},
    "several": {"time_reduce_idx": [0, 2], "time_recovery_idx": [1, 3]},
}


def layout(past: int, **settings: Any) -> Caches:
    return Caches(small_encoder(streaming=True, att_context_size=[8, 3], **settings), past)


def random_caches(caches: Caches, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    channel, time, length = caches.zeros(batch, torch.float32, torch.device("cpu"))
    return channel.normal_(), time.normal_(), length.random_(0, caches.past + 1)


def tensors(state: EncoderState) -> list[Tensor]:
    layers = [tensor for layer in state.layers for tensor in (layer.attention, layer.convolution)]
    return [*(reduction.reduction for reduction in state.reductions), *layers, state.cached]


@pytest.mark.parametrize("kernel", [1, 7])
@pytest.mark.parametrize("past", [0, 1, 8, 13])
@pytest.mark.parametrize("unet", UNETS)
def test_packing_and_unpacking_a_state_gives_the_same_state(unet, past, kernel):
    caches = layout(past, conv_kernel_size=kernel, **UNETS[unet])
    given = random_caches(caches, 3)
    state = caches.unpacked(*given)
    packed = caches.packed(state, given)
    again = caches.unpacked(*packed)
    for tensor, expected in zip(tensors(again), tensors(state), strict=True):
        assert_close(tensor, expected, atol=0, rtol=0)
    for tensor, expected in zip(caches.packed(again, packed), packed, strict=True):
        assert tensor.shape == expected.shape and 0 not in tensor.shape and tensor.dtype == expected.dtype
        assert_close(tensor, expected, atol=0, rtol=0)
    frames = sum(tensor.size(1) for tensor in (layer.attention for layer in state.layers)) + 3 * len(state.reductions)
    values = torch.cat([tensor.flatten() for tensor in tensors(state)[:-1]]).sort().values
    kept = torch.cat(
        [given[0].transpose(0, 1).flatten(1, 2)[:, :frames].flatten(), given[1][..., : kernel - 1].flatten()]
    )
    assert_close(values, kept.sort().values, atol=0, rtol=0)  # each value occurs once


@pytest.mark.parametrize(
    "unet, past, frames",
    [
        ("no U-Net", 8, 4 * 8),
        ("one", 8, 8 + 4 + 4 + 8 + 3),
        ("one", 13, 13 + 6 + 6 + 13 + 3),
        ("nested", 8, 4 + 2 + 4 + 8 + 2 * 3),
        ("several", 8, 4 + 8 + 4 + 8 + 2 * 3),
        ("one", 0, 3),
    ],
)
def test_layers_of_the_unet_use_half_as_many_frames_and_the_rows_are_minimal(unet, past, frames):
    caches = layout(past, **UNETS[unet])
    channel, time, length = caches.zeros(2, torch.float32, torch.device("cpu"))
    assert channel.shape == (4, 2, -(-frames // 4), 16)
    assert time.shape == (4, 2, 32, 6) and length.shape == (2,)


def test_the_caches_have_the_bytes_of_the_frames_and_of_the_left_context_of_convolutions():
    caches = layout(156, n_layers=6, conv_kernel_size=31, time_reduce_idx=2, time_recovery_idx=5)
    stream = caches.zeros(1, torch.float32, torch.device("cpu"))
    frames = 3 * 156 + 3 * 156 // 2 + 3
    empty = -frames % 6  # unused rows, because all layers have the same number of rows
    assert sum(tensor.nbytes for tensor in stream) == 4 * ((frames + empty) * 16 + 6 * 2 * 16 * 30) + 8


@pytest.mark.parametrize("unet", UNETS)
def test_zeros_are_a_new_stream(unet):
    encoder = small_encoder(streaming=True, att_context_size=[8, 3], **UNETS[unet])
    caches = Caches(encoder, 8)
    state, fresh = caches.unpacked(*caches.zeros(2, torch.float32, torch.device("cpu"))), encoder.init_state(2)
    for tensor, expected in zip(tensors(state), tensors(fresh), strict=True):
        assert_close(tensor, expected, atol=0, rtol=0)
    assert (state.past, state.advance) == (fresh.past, fresh.advance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_caches_keep_their_dtypes_through_a_chunk(dtype):
    encoder = small_encoder(streaming=True, att_context_size=[8, 3], time_reduce_idx=1)
    caches = Caches(encoder, 8)
    channel, time, length = caches.zeros(2, dtype, torch.device("cpu"))
    given = (channel, time, length.int())
    state = caches.unpacked(*given)
    x = features(2, 4, 16).transpose(1, 2)
    encoder.encode(x, torch.tensor([4, 4]), state)
    packed = caches.packed(state, given)
    assert [tensor.dtype for tensor in packed] == [dtype, dtype, torch.int32]
    assert packed[2].tolist() == [4, 4] and packed[0].abs().max() > 0 and packed[1].abs().max() > 0


def test_caches_of_another_layout_are_refused():
    caches = layout(8, time_reduce_idx=1)
    channel, time, length = random_caches(caches, 2)
    for wrong in (channel[:3], channel[:, :, :-1], channel[..., :-1]):
        with pytest.raises(ValueError, match=r"cache_last_channel of shape .* expected \(4, 'B', 7, 16\)"):
            caches.unpacked(wrong, time, length)
    for wrong in (time[:3], time[:, :, :-1], time[..., :-1]):
        with pytest.raises(
            ValueError, match=r"cache_last_time of shape .* get_initial_cache_state\(\), .* again after"
        ):
            caches.unpacked(channel, wrong, length)


def test_a_chunk_does_not_change_the_given_caches():
    encoder = small_encoder(streaming=True, att_context_size=[8, 3], time_reduce_idx=1)
    caches = Caches(encoder, 8)
    given = random_caches(caches, 2)
    before = [tensor.clone() for tensor in given]
    state = caches.unpacked(*given)
    with torch.no_grad():
        encoder.encode(features(2, 4, 16).transpose(1, 2), torch.tensor([4, 2]), state)
    caches.packed(state, given)
    for tensor, expected in zip(given, before, strict=True):
        assert_close(tensor, expected, atol=0, rtol=0)
