"""Subsampling in parts of a batch; its causal form is held against NeMo's own in test_nemo_modules.py."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from tests.models import features, small_encoder, valid


@pytest.mark.parametrize("parts", [-1, 1, 2, 8])
def test_parts_of_a_batch_change_nothing(parts):
    batch, lengths = features(5, 41), torch.tensor([41, 3, 40, 22, 9])
    expected, _ = small_encoder()(batch, lengths)
    output, lengths = small_encoder(subsampling_conv_chunking_factor=parts)(batch, lengths)
    assert_close(valid(output, lengths), valid(expected, lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor, parts", [(-1, 1), (1, 3), (4, 4)])
def test_only_a_factor_of_one_splits_what_is_too_large_for_pytorch(factor, parts, monkeypatch):
    encoder = small_encoder(subsampling_conv_chunking_factor=factor)
    x = features(5, 41).transpose(1, 2)
    assert encoder.pre_encode.chunks(x) == max(factor, 1)
    monkeypatch.setattr(type(encoder.pre_encode), "LARGEST", 5 * 41 * 20 * 16 // 4 // 2 - 1)
    assert encoder.pre_encode.chunks(x) == parts


@pytest.mark.parametrize("kind", ["dw_striding", "striding", "stacking", "stacking_norm"])
def test_causal_downsampling_is_independent_of_padding(kind):
    encoder = small_encoder(subsampling=kind, causal_downsampling=True, time_reduce_idx=1)
    for length in range(33, 41):
        alone = features(1, length)
        expected, expected_length = encoder(alone, torch.tensor([length]))
        batch = features(2, 64, seed=1)
        batch[1, :, :length] = alone
        batch[1, :, length:] = float("nan")
        output, lengths = encoder(batch, torch.tensor([64, length]))
        assert lengths[1] == expected_length[0]
        assert_close(valid(output[1:], lengths[1:]), valid(expected, expected_length), atol=1e-5, rtol=0)


def test_streaming_has_a_subsampling_of_its_own():
    with pytest.raises(ValueError, match="leave out causal_downsampling"):
        small_encoder(streaming=True, causal_downsampling=True, att_context_size=[8, 3])
    with pytest.raises(ValueError, match="subsampling_conv_chunking_factor=3"):
        small_encoder(subsampling_conv_chunking_factor=3)
