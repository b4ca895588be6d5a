"""Tests of the core encoder that do not depend on NeMo."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from tests.samples.encoders import SMALL, features, small_encoder, valid

SUBSAMPLINGS = [
    pytest.param({"subsampling": kind, "subsampling_factor": factor}, id=f"{kind}-{factor}")
    for kind in ("dw_striding", "striding", "stacking", "stacking_norm", None)
    for factor in (1, 2, 4, 8)
]


def test_core_imports_only_torch():
    program = (
        "import sys, torch; known = set(sys.modules); import nemo_squeezeformer.core\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - known} - set(sys.stdlib_module_names)\n"
        "assert new - {'torch', 'sympy', 'mpmath'} == {'nemo_squeezeformer'}, new"  # torch loads its own parts late
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("settings", SUBSAMPLINGS)
def test_an_utterance_has_the_same_output_alone_in_a_batch_and_with_garbage_in_the_padding(settings):
    encoder = small_encoder(time_reduce_idx=1, **settings)
    for length in range(33, 41):  # every residue modulo 8
        alone = features(1, length)
        expected, expected_length = encoder(alone, torch.tensor([length]))
        batch = features(3, 64, seed=1)
        batch[1, :, :length] = alone
        lengths = torch.tensor([64, length, 50])
        for garbage in (0.0, 1e4, float("nan")):
            batch[1, :, length:] = garbage
            output, output_lengths = encoder(batch, lengths)
            assert output_lengths[1] == expected_length[0] == -(-length // encoder.subsampling_factor)
            # float32 sums in another order, over four layers
            assert_close(output[1, :, : output_lengths[1]], expected[0], atol=1e-5, rtol=0)


def test_a_longer_length_changes_the_output():
    encoder = small_encoder(time_reduce_idx=1)
    batch = features(1, 64)
    short, _ = encoder(batch, torch.tensor([40]))
    long, _ = encoder(batch, torch.tensor([64]))
    assert (short[..., :10] - long[..., :10]).abs().max() > 1e-3


def test_an_utterance_without_frames_has_no_output_frames_and_does_not_change_others():
    encoder = small_encoder(time_reduce_idx=1)
    batch = features(2, 40)
    output, lengths = encoder(batch, torch.tensor([40, 0]))
    expected, _ = encoder(batch[:1], torch.tensor([40]))
    assert lengths.tolist() == [10, 0] and output.isfinite().all()
    assert_close(output[:1], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 13])
def test_inputs_shorter_than_any_kernel_work(length):
    output, lengths = small_encoder(time_reduce_idx=1)(features(1, length))
    assert output.shape == (1, 16, -(-length // 4)) and lengths.tolist() == [-(-length // 4)]
    assert output.isfinite().all()


def test_without_lengths_every_frame_is_valid():
    encoder = small_encoder()
    assert_close(encoder(features(2, 37))[0], encoder(features(2, 37), torch.tensor([37, 37]))[0], atol=0, rtol=0)


@pytest.mark.parametrize("reduce, recover", [(None, None), (0, 0), (0, 3), (1, 2), (2, 2), (3, 3), (1, None)])
def test_the_temporal_unet_runs_its_layers_at_half_the_frame_rate(reduce, recover):
    encoder = small_encoder(time_reduce_idx=reduce, time_recovery_idx=recover)
    rates = {}
    for i, layer in enumerate(encoder.layers):
        layer.register_forward_hook(lambda module, args, output, i=i: rates.update({i: output.size(1)}))
    output, _ = encoder(features(1, 50))
    halved = range(0) if reduce is None else range(reduce, 3 if recover is None else recover)
    assert rates == {i: 7 if i in halved else 13 for i in range(4)}
    assert output.size(2) == 13


def test_the_branch_of_the_unet_changes_the_output():
    with_branch = small_encoder(time_reduce_idx=1)
    without = small_encoder(time_reduce_idx=1)
    torch.nn.init.zeros_(without.time_recovery_layer.weight)
    assert (with_branch(features(1, 50))[0] - without(features(1, 50))[0]).abs().max() > 0.1


@pytest.mark.parametrize("left, right", [(0, 0), (2, 1), (4, -1), (-1, 3)])
def test_attention_reaches_exactly_its_context(left, right):
    # with kernel size 1, only attention mixes frames
    encoder = small_encoder(
        n_layers=1, conv_kernel_size=1, att_context_size=[left, right], subsampling=None, subsampling_factor=1
    )
    x = features(1, 15)
    moved = x.clone()
    moved[..., 7] += 1.0
    changed = (encoder(x)[0] - encoder(moved)[0]).abs().amax(dim=(0, 1)) > 1e-6
    first = 0 if right < 0 else 7 - right
    last = 14 if left < 0 else 7 + left
    assert changed.nonzero().flatten().tolist() == list(range(first, last + 1))


def test_gradients_reach_every_parameter():
    encoder = small_encoder(time_reduce_idx=1, feat_out=8).train()
    encoder(features(2, 60))[0].square().sum().backward()
    # The bias of the keys adds the same value to all scores of a query, which does not change the softmax.
    without = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert {name for name in without if "linear_k.bias" not in name} == set()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"time_reduce_idx": 2, "time_recovery_idx": 1}, "time_reduce_idx=2, time_recovery_idx=1"),
        ({"time_reduce_idx": 4}, "time_reduce_idx=4"),
        ({"time_reduce_idx": 1, "time_recovery_idx": 4}, "time_recovery_idx=4"),
        ({"time_reduce_idx": -1}, "time_reduce_idx=-1"),
        ({"conv_kernel_size": 8}, "conv_kernel_size=8 must be odd"),
        ({"n_heads": 3}, "n_heads=3 must divide d_model=16"),
        ({"n_heads": 3, "untie_biases": False}, "n_heads=3 must divide d_model=16"),
        ({"d_model": 15, "n_heads": 5}, "d_model=15 must be even"),
        ({"subsampling": "pooling"}, "subsampling='pooling': expected one of dw_striding"),
        ({"subsampling": "vggnet"}, "use 'dw_striding' or 'striding'"),
        ({"subsampling_factor": 6}, "subsampling_factor=6 must be a power of 2"),
        ({"subsampling_factor": 0}, "subsampling_factor=0"),
        (
            {"self_attention_model": "alibi"},
            "self_attention_model='alibi': expected one of 'rel_pos', 'rel_pos_local_attn', 'abs_pos', 'rope'",
        ),
        ({"conv_norm_type": "rms_norm"}, "conv_norm_type='rms_norm': expected one of batch_norm"),
        ({"conv_norm_type": "group_norm5"}, "N divides 32"),
        ({"att_context_size": [-2, 0]}, "att_context_size=\\[-2, 0\\]"),
    ],
)
def test_a_wrong_setting_fails_when_built_and_names_the_value(settings, words):
    with pytest.raises(ValueError, match=words):
        SqueezeformerEncoder(**(SMALL | settings))


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", "instance_norm", "fused_batch_norm", "group_norm4"])
@pytest.mark.parametrize("attention", ["rel_pos", "abs_pos", "rope"])
def test_every_norm_and_attention_trains(norm, attention):
    encoder = small_encoder(conv_norm_type=norm, self_attention_model=attention, time_reduce_idx=1).train()
    output, _ = encoder(features(2, 40))
    output.square().mean().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)


def test_shared_position_biases_are_one_parameter():
    encoder = small_encoder(untie_biases=False)
    assert len({id(layer.self_attn.pos_bias_u) for layer in encoder.layers}) == 1
    assert len({id(layer.self_attn.pos_bias_u) for layer in small_encoder().layers}) == 4


def test_subsampling_part_of_the_batch_at_a_time_changes_nothing():
    encoder, batch, lengths = small_encoder(), features(5, 41), torch.tensor([41, 3, 40, 22, 9])
    expected, _ = encoder(batch, lengths)
    for encoder.pre_encode.batch_chunks in (2, 4, 8):
        output, output_lengths = encoder(batch, lengths)
        assert_close(valid(output, output_lengths), valid(expected, output_lengths), atol=1e-5, rtol=0)


def test_bfloat16_weights_run():
    encoder = small_encoder(time_reduce_idx=1).bfloat16()
    output, _ = encoder(features(2, 60).bfloat16())
    assert output.dtype == torch.bfloat16 and output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_loses_no_more_than_its_precision(dtype):
    encoder, x = small_encoder(time_reduce_idx=1), features(2, 200)
    expected, _ = encoder(x)
    with torch.autocast("cpu", dtype=dtype):
        output, _ = encoder(x)
    # float16 has 3 decimal digits and bfloat16 has 2.4; the outputs have unit variance after four layers of sums
    assert_close(output.float(), expected, atol=0.2 if dtype == torch.bfloat16 else 0.03, rtol=0)


def test_compiles_to_one_graph():
    encoder = small_encoder(time_reduce_idx=1)
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager", dynamic=False)
    x, lengths = features(2, 61), torch.tensor([61, 20])
    assert_close(compiled(x, lengths)[0], encoder(x, lengths)[0], atol=1e-5, rtol=0)


def test_torch_export_keeps_time_dynamic():
    encoder = small_encoder(time_reduce_idx=1)
    shapes = {"features": {2: torch.export.Dim.AUTO}, "lengths": None}
    with torch.no_grad():
        program = torch.export.export(encoder, (features(2, 100), torch.tensor([100, 80])), dynamic_shapes=shapes)
        for length in (33, 64, 257):
            x, lengths = features(2, length), torch.tensor([length, length - 5])
            assert_close(program.module()(x, lengths)[0], encoder(x, lengths)[0], atol=1e-5, rtol=0)
