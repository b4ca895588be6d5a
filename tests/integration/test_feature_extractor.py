"""Tests of the features of several layers: NeMo's extractor, its aggregators and self-supervised losses."""

from __future__ import annotations

import pytest
import torch
from nemo.core.classes.mixins import AccessMixin, access_mixins
from torch.testing import assert_close

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import small_nemo_encoder
from tests.samples.encoders import features, on_record

LENGTHS = [101, 60]  # feature frames; 26 and 15 encoder frames, 13 and 8 inside the U-Net


def extractors() -> list[type]:
    """Return NeMo's feature extractor classes: one class in 3.0.0, two different classes in 2.7.3."""
    from nemo.collections.asr.modules import conformer_encoder
    from nemo.collections.asr.modules.ssl_modules import multi_layer_feat

    name = "ConformerMultiLayerFeatureExtractor"
    return list({getattr(module, name): None for module in (conformer_encoder, multi_layer_feat)})


def extract(made: SqueezeformerEncoder, layers: list[int], aggregator=None, extractor: type | None = None):
    """Return the extractor's outputs of the layers, without the output of the encoder."""
    settings = {"layer_idx_list": layers, "aggregator": aggregator}
    extractor = extractor or extractors()[0]
    if "include_final_output" in extractor.__init__.__code__.co_varnames:
        settings["include_final_output"] = False
    return extractor(made, **settings)(features(2, 101), torch.tensor(LENGTHS))


def own_outputs(made: SqueezeformerEncoder) -> dict[int, torch.Tensor]:
    """Return the output (B, D, T) of each layer at its own frame rate, recorded by a hook."""
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, i=i: outputs.update({i: output.transpose(1, 2)}))
        for i, layer in enumerate(made.layers)
    ]
    made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("extractor", extractors(), ids=lambda extractor: extractor.__module__.rsplit(".", 1)[-1])
def test_features_of_every_layer_have_the_frame_rate_of_the_encoder(extractor):
    made = small_nemo_encoder()
    own = own_outputs(made)
    outputs, lengths = extract(made, [0, 1, 2, 3], extractor=extractor)
    assert [tuple(x.shape) for x in outputs] == [(2, 16, 26)] * 4
    assert [length.tolist() for length in lengths] == [[26, 15]] * 4
    assert_close(outputs[0], own[0], atol=0, rtol=0)
    assert tuple(own[2].shape) == (2, 16, 13)
    assert_close(outputs[2][:, :, ::2], own[2], atol=0, rtol=0)
    assert_close(outputs[2][:, :, 1::2], own[2], atol=0, rtol=0)


def test_the_extra_frame_of_the_original_variant_is_removed():
    made, x, lengths = small_nemo_encoder(variant="original"), features(2, 8), torch.tensor([8, 5])
    with on_record(interctc={"capture_layers": [0, 1, 2, 3]}):
        made(audio_signal=x, length=lengths)
    own = [made._registry[f"interctc/layer_output_{i}"][0] for i in range(4)]
    assert [output.size(2) for output in own] == [3, 2, 2, 3]
    assert [made._registry[f"interctc/layer_length_{i}"][0].tolist() for i in range(4)] == [
        [2, 2],
        [1, 1],
        [1, 1],
        [2, 2],
    ]
    made.reset_registry()
    outputs, valid = extractors()[0](made, layer_idx_list=[0, 1, 3])(x, lengths)
    for output, layer in zip(outputs, (own[0], own[1][:, :, :1].repeat(1, 1, 2), own[3])):
        assert_close(output, layer[:, :, :2], atol=0, rtol=0)
    assert [length.tolist() for length in valid[:3]] == [[2, 2]] * 3


@pytest.mark.parametrize("mode", ["cat", "sum", "mean", "weighted_sum"])
def test_nemos_aggregators_combine_layers_of_both_rates(mode):
    from nemo.collections.asr.modules.ssl_modules.multi_layer_feat import Aggregator

    made, layers = small_nemo_encoder(), [0, 2, 3]
    joined, lengths = extract(made, layers, Aggregator(mode, None, layers))
    alone, _ = extract(made, layers)
    expected = {"cat": torch.cat(alone, dim=1), "sum": sum(alone)}.get(mode, sum(alone) / 3)
    assert_close(joined, expected, atol=1e-5, rtol=0)
    assert lengths.tolist() == [26, 15]


def test_the_output_of_the_encoder_can_be_combined_with_layers():
    from nemo.collections.asr.modules.conformer_encoder import ConformerMultiLayerFeatureExtractor as Extractor

    if "include_final_output" not in Extractor.__init__.__code__.co_varnames:
        pytest.skip("this NeMo's extractor has no include_final_output")
    made = small_nemo_encoder(feat_out=8)
    outputs, lengths = Extractor(made, layer_idx_list=[2])(features(2, 101), torch.tensor(LENGTHS))
    assert [tuple(x.shape) for x in outputs] == [(2, 8, 26), (2, 8, 26)]
    assert [length.tolist() for length in lengths] == [[26, 15], [26, 15]]
    final, _ = made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
    assert_close(outputs[1], final, atol=0, rtol=0)


def test_extraction_does_not_change_the_encoder():
    made = small_nemo_encoder()
    extract(made, [0, 2])
    assert not AccessMixin.is_access_enabled() and not AccessMixin.get_module_registry(made)
    made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
    assert not AccessMixin.get_module_registry(made)
    first, second = extract(made, [2])[0][0], extract(made, [2])[0][0]
    assert_close(first, second, atol=0, rtol=0)


def test_gradients_reach_inner_layers_but_not_later_layers():
    made = small_nemo_encoder()
    extract(made, [2])[0][0].square().sum().backward()
    reached = [layer.conv.depthwise_conv.weight.grad is not None for layer in made.layers]
    assert reached == [True, True, True, False]


def test_interctc_records_keep_the_rate_and_lengths_of_the_layer():
    made = small_nemo_encoder(feat_out=8)
    with on_record(interctc={"capture_layers": [0, 1, 2, 3]}):  # the request of InterCTC contains only layers
        made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
    record = made._registry
    lengths = {i: record[f"interctc/layer_length_{i}"][0].tolist() for i in range(4)}
    assert lengths == {0: [26, 15], 1: [13, 8], 2: [13, 8], 3: [26, 15]}
    shapes = {i: tuple(record[f"interctc/layer_output_{i}"][0].shape) for i in range(4)}
    assert shapes == {0: (2, 8, 26), 1: (2, 8, 13), 2: (2, 8, 13), 3: (2, 8, 26)}


def test_self_supervised_losses_get_every_layer_at_the_frame_rate_of_the_encoder():
    made = small_nemo_encoder()
    own = own_outputs(made)
    with on_record(save_encoder_tensors=True):
        made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
    registry = AccessMixin.get_module_registry(made)
    assert sorted(registry) == [f"layers.{i}" for i in range(4)]
    for i in range(4):
        (seen,) = registry[f"layers.{i}"]["encoder"]
        expected = own[i] if i in (0, 3) else own[i].repeat_interleave(2, dim=2)
        assert_close(seen, expected.transpose(1, 2), atol=0, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 97])
def test_repeated_frames_match_the_number_of_encoder_frames_at_any_length(frames):
    made = small_nemo_encoder(subsampling=None)
    extractor = extractors()[0](made, layer_idx_list=[1, 3])
    outputs, lengths = extractor(features(1, frames), torch.tensor([frames]))
    assert {x.size(2) for x in outputs} == {frames} and {length.item() for length in lengths} == {frames}


def test_a_nested_unet_records_quarter_rates_at_the_rate_of_the_encoder():
    made = small_nemo_encoder(n_layers=6, time_reduce_idx=[1, 2], time_recovery_idx=[5, 4])
    own = own_outputs(made)
    assert [own[i].size(2) for i in range(6)] == [26, 13, 7, 7, 13, 26]
    outputs, lengths = extract(made, list(range(6)))
    for i, rate in enumerate([1, 2, 4, 4, 2, 1]):
        assert_close(outputs[i], own[i].repeat_interleave(rate, dim=2)[:, :, :26], atol=0, rtol=0)
    assert [length.tolist() for length in lengths] == [[26, 15]] * 6


def test_layers_that_checkpointing_computes_twice_are_recorded_once():
    made = small_nemo_encoder(gradient_checkpointing=True).train()
    with on_record(interctc={"capture_layers": [0, 2]}, save_encoder_tensors=True):
        output, _ = made(audio_signal=features(2, 101), length=torch.tensor(LENGTHS))
        output.square().sum().backward()
    records = AccessMixin.get_module_registry(made)
    assert sorted(records) == ["", *(f"layers.{i}" for i in range(4))]
    assert all(len(tensors) == 1 for record in records.values() for tensors in record.values())


def test_recording_is_off_after_extraction():
    assert not access_mixins._ACCESS_ENABLED.get("default", False)
