"""Tests of the temporal U-Net with several levels: frame rates, lengths, masks and streams at each level."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core import SqueezeformerEncoder
from nemo_squeezeformer.core.frames.spans import build_spans
from tests.samples.encoders import SMALL, features, small_encoder

# time_reduce_idx, time_recovery_idx, and for each of 6 layers how many times the frame rate is halved
LEVELS = [
    pytest.param(None, None, [0, 0, 0, 0, 0, 0], id="none"),
    pytest.param(1, None, [0, 1, 1, 1, 1, 0], id="one level"),
    pytest.param([1], [5], [0, 1, 1, 1, 1, 0], id="a list of one"),
    pytest.param([1, 2], [5, 4], [0, 1, 2, 2, 1, 0], id="nested"),
    pytest.param([1, 2, 3], [5, 5, 4], [0, 1, 2, 3, 2, 0], id="three levels"),
    pytest.param([1, 2], None, [0, 1, 2, 2, 2, 0], id="nested, to the last layer"),
    pytest.param([1, 1], [4, 3], [0, 2, 2, 1, 0, 0], id="two reductions at one layer"),
    pytest.param([0, 3], [2, 5], [1, 1, 0, 1, 1, 0], id="one after another"),
    pytest.param([0, 1, 3], [5, 3, 4], [1, 2, 2, 2, 1, 0], id="two inside one"),
    pytest.param([0, 2], [2, 2], [1, 1, 0, 0, 0, 0], id="an empty branch"),
]


def unet(reduce, recover, **settings) -> SqueezeformerEncoder:
    return small_encoder(n_layers=6, time_reduce_idx=reduce, time_recovery_idx=recover, **settings)


def frames_of_layers(encoder: SqueezeformerEncoder) -> dict:
    """Return a dict that the next forward pass fills: for each layer, the number of frames and its ``Frames``."""
    seen = {}
    for i, layer in enumerate(encoder.layers):
        layer.register_forward_hook(lambda module, args, output, i=i: seen.update({i: (output.size(1), args[1])}))
    return seen


@pytest.mark.parametrize("reduce, recover, halvings", LEVELS)
def test_every_layer_runs_at_its_own_rate_with_the_lengths_and_masks_of_that_rate(reduce, recover, halvings):
    encoder = unet(reduce, recover, att_context_size=[8, 4])
    seen = frames_of_layers(encoder)
    lengths = torch.tensor([101, 70])
    output, output_lengths = encoder(features(2, 101), lengths)
    assert output.size(2) == 26 and output_lengths.tolist() == [26, 18]
    full = encoder.frames(torch.zeros(2, 26, 16), output_lengths, None)
    for i, times in enumerate(halvings):
        step = 2**times
        t, frames = seen[i]
        assert t == -(-26 // step) == frames.padding.size(1)
        assert frames.lengths.tolist() == [-(-26 // step), -(-18 // step)]
        assert_close(frames.padding, full.padding[:, ::step], atol=0, rtol=0)
        assert_close(frames.blocked, full.blocked[:, ::step, ::step], atol=0, rtol=0)


@pytest.mark.parametrize("reduce, recover, halvings", LEVELS)
def test_padding_does_not_change_valid_frames_at_any_level(reduce, recover, halvings):
    encoder = unet(reduce, recover)
    for length in (*range(40, 48), 3, 1):
        alone = features(1, length)
        expected, _ = encoder(alone, torch.tensor([length]))
        batch = features(2, 80, seed=1)
        batch[0, :, :length], batch[0, :, length:] = alone[0], float("nan")
        output, lengths = encoder(batch, torch.tensor([length, 80]))
        assert_close(output[0, :, : lengths[0]], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("reduce, recover, halvings", LEVELS)
def test_chunks_equal_the_whole_utterance_at_every_level(reduce, recover, halvings):
    chunk = 2 ** max(halvings)
    encoder = unet(reduce, recover, streaming=True, att_context_size=[2 * chunk, chunk - 1])
    for total in (4 * chunk, 20 * chunk + 5):
        x = features(2, total)
        state = encoder.init_state(2)
        chunks = [encoder(part, state=state)[0] for part in x.split(4 * chunk, dim=2)]
        assert_close(torch.cat(chunks, dim=2), encoder(x)[0], atol=1e-5, rtol=0)


def test_a_stream_needs_chunks_that_every_level_can_halve():
    with pytest.raises(ValueError, match=r"att_context_size=\[4, 1\]"):
        unet([1, 2], [5, 4], streaming=True, att_context_size=[4, 1]).init_state(1)
    unet([1], [5], streaming=True, att_context_size=[4, 1]).init_state(1)


def test_an_inner_level_with_zero_output_does_not_change_the_outer_level():
    nested = unet([1, 2], [5, 4])
    torch.nn.init.zeros_(nested.time_recovery_layer_2.weight), torch.nn.init.zeros_(nested.time_recovery_layer_2.bias)
    outer = small_encoder(n_layers=4, time_reduce_idx=1, time_recovery_idx=3)
    renamed = {0: 0, 1: 1, 2: 4, 3: 5}  # without the layers inside the inner level
    weights = {
        name: nested.state_dict()[
            name.replace(f"layers.{name.split('.')[1]}.", f"layers.{renamed[int(name.split('.')[1])]}.")
            if name.startswith("layers.")
            else name
        ]
        for name in outer.state_dict()
    }
    outer.load_state_dict(weights, strict=True)
    x = features(2, 77)
    assert_close(nested(x)[0], outer(x)[0], atol=1e-6, rtol=0)
    torch.nn.init.ones_(nested.time_recovery_layer_2.bias)
    assert (nested(x)[0] - outer(x)[0]).abs().max() > 0.1


def test_the_first_branch_keeps_its_names_and_later_branches_are_numbered():
    single, nested = unet(1, 5).state_dict(), unet([1, 2, 3], [5, 5, 4]).state_dict()
    new = {name.partition(".")[0] for name in nested.keys() - single.keys()}
    assert single.keys() < nested.keys()
    assert new == {f"time_{end}_layer_{number}" for end in ("reduce", "recovery") for number in (2, 3)}


def test_lists_of_one_index_equal_single_indices():
    x = features(2, 77)
    assert_close(unet([1], [4])(x)[0], unet(1, 4)(x)[0], atol=0, rtol=0)


def test_gradients_reach_every_level():
    encoder = unet([1, 2, 3], [5, 5, 4]).train()
    encoder(features(2, 120))[0].square().sum().backward()
    silent = {name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert {name for name in silent if "linear_k.bias" not in name} == set()


@pytest.mark.parametrize(
    "reduce, recover, words",
    [
        (
            [1, 2],
            [5],
            r"time_reduce_idx=\[1, 2\], time_recovery_idx=\[5\]: expected as many indices in time_recovery_idx",
        ),
        (1, [5, 4], "as in time_reduce_idx, 1"),
        (
            [1, 2],
            [3, 4],
            "the branches 1 to 3 and 2 to 4 cross; a branch that starts inside another branch must end inside it",
        ),
        ([2, 1], [4, 5], "sort time_reduce_idx in ascending order"),
        ([1, 2], [6, 4], "time_recovery_idx < n_layers=6"),
        ([1, 4], [5, 3], "time_reduce_idx <= time_recovery_idx"),
        ([-1, 2], [5, 4], r"time_reduce_idx=\[-1, 2\]"),
    ],
)
def test_invalid_indices_are_refused_by_value(reduce, recover, words):
    with pytest.raises(ValueError, match=words):
        SqueezeformerEncoder(**(SMALL | {"n_layers": 6, "time_reduce_idx": reduce, "time_recovery_idx": recover}))


def test_spans_know_their_depth():
    span = build_spans(6, [0, 1, 3], [5, 3, 4])
    assert [branch.number for branch in span.all_branches()] == [1, 2, 3]
    assert span.depth() == 2 and build_spans(6, None, None).depth() == 0
