"""Tests of ``variant="original"``: the authors' network with the names and shapes of NeMo's network."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples.encoders import SMALL, features, small_encoder


def original(**settings) -> SqueezeformerEncoder:
    return small_encoder(**({"time_reduce_idx": 1, "variant": "original"} | settings))


def test_names_and_shapes_are_those_of_the_nemo_variant():
    def shapes(encoder: SqueezeformerEncoder) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in encoder.state_dict().items()}

    assert shapes(original()) == shapes(original(variant="nemo"))


@pytest.mark.parametrize("settings", [{}, {"subsampling": "striding"}, {"time_reduce_idx": [0, 1]}], ids=str)
@torch.no_grad()
def test_an_utterance_is_the_same_alone_and_in_any_batch(settings):
    encoder, other = original(**settings), original(**settings, variant="nemo")
    lengths = torch.tensor([61, 1, 2, 3, 4, 5, 58, 59, 60])
    batch = features(len(lengths), 67)
    batch = batch.masked_fill(torch.arange(67) >= lengths[:, None, None], float("nan"))
    outputs, valid = encoder(batch, lengths)
    assert outputs.shape == (9, SMALL["d_model"], 17)
    assert valid.tolist() == [16, 1, 1, 1, 1, 2, 15, 15, 15]
    for utterance, length, output, n in zip(batch, lengths.tolist(), outputs, valid.tolist()):
        for t in (length, min(length + 3, 67)):
            alone, one = encoder(utterance[None, :, :t], torch.tensor([length]))
            assert one.tolist() == [n] and alone.size(2) == -(-t // 4)
            assert_close(alone[0, :, :n], output[:, :n], atol=1e-5, rtol=0)
        every, _ = encoder(utterance[None, :, :length])
        assert_close(every[0], output[:, :n], atol=1e-5, rtol=0)
        assert (other(utterance[None, :, :length])[0] - every).abs().max() > 1e-2


@torch.no_grad()
def test_subsampling_and_reduction_layer_see_no_earlier_frames():
    """In contrast, the NeMo variant sees earlier frames."""
    encoder, batch = original(), features(1, 32)
    changed = batch.clone()
    changed[..., :16] += 1.0
    length = torch.tensor([32])
    for net, sees in ((encoder, False), (original(variant="nemo"), True)):
        x, y = (net.pre_encode(given.transpose(1, 2), length)[0] for given in (batch, changed))
        assert (x[:, 4] != y[:, 4]).any() == sees
        frames = net.frames(x, torch.tensor([8]), None)
        x, y = (
            net.time_reduce_layer(torch.where(torch.arange(9)[: x.size(1), None] < k, 0.0, x), frames) for k in (0, 4)
        )
        assert (x[:, 2] != y[:, 2]).any() == sees


@pytest.mark.parametrize("attention", ["plain", "blocks", "sdpa"])
@torch.no_grad()
def test_every_kernel_gives_the_same_outputs(attention):
    lengths = torch.tensor([50, 47])
    expected, valid = original()(features(2, 50), lengths)
    output, _ = original(attention=attention)(features(2, 50), lengths)
    assert_close(output[..., :12], expected[..., :12], atol=1e-5, rtol=0)
    output, _ = original(attention=attention).optimize_for_inference()(features(2, 50), lengths)
    assert_close(output[0, :, : valid[0]], expected[0, :, : valid[0]], atol=1e-5, rtol=0)


def test_fast_implementations_of_training_give_the_same_gradients():
    lengths, gradients = torch.tensor([50, 39, 7]), []
    for attention in ("plain", "auto"):
        encoder = original(attention=attention).double().train()
        output, valid = encoder(features(3, 50).double(), lengths)
        keep = torch.arange(output.size(2)) < valid[:, None, None]
        (output * keep).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients):
        assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "tensorflow"}, "variant='tensorflow': expected one of 'nemo', 'original'"),
        ({"subsampling": "stacking"}, "subsampling='stacking'.*set subsampling='dw_striding'"),
        ({"subsampling": None}, "subsampling=None"),
        ({"streaming": True, "att_context_size": [8, 3]}, "streaming=True.*do not stream"),
        ({"causal_downsampling": True}, "causal_downsampling=True"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_original_network_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        original(**settings)


def test_streams_are_refused():
    with pytest.raises(ValueError, match="variant='original' does not stream"):
        original(att_context_size=[8, 3], att_context_style="chunked_limited", conv_context_size="causal").init_state(1)
