"""Tests of the attention context: its styles, also inside the temporal U-Net, and its random sizes in training."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from nemo_squeezeformer.core.frames.context import Context, ContextSettings
from nemo_squeezeformer.core.frames.masks import Frames
from tests.samples.encoders import features, small_encoder

CHUNKED = {"att_context_style": "chunked_limited", "att_context_size": [8, 3]}
WITH_RIGHT = {"att_context_style": "chunked_limited_with_rc"}


def in_reach(query: int, key: int, style: str, size: list[int]) -> bool:
    """Return True if ``query`` sees ``key``: the rule of each style for a single pair of frames."""
    if style == "regular":
        return all(limit < 0 or distance <= limit for limit, distance in zip(size, (query - key, key - query)))
    if style == "chunked_limited":
        left, chunk = size[0], size[1] + 1
        return key // chunk <= query // chunk and (left < 0 or query // chunk - key // chunk <= left // chunk)
    left, chunk, right = size
    first = query // chunk * chunk
    return (left < 0 or key >= first - left) and (right < 0 or key < first + chunk + right)


SIZES = [
    ("regular", [0, 0]),
    ("regular", [5, 3]),
    ("regular", [4, -1]),
    ("chunked_limited", [8, 3]),
    ("chunked_limited", [-1, 3]),
    ("chunked_limited", [0, 1]),
    ("chunked_limited_with_rc", [6, 4, 2]),
    ("chunked_limited_with_rc", [-1, 2, 0]),
    ("chunked_limited_with_rc", [3, 4, -1]),
]


@pytest.mark.parametrize("style, size", SIZES)
def test_masks_follow_the_rule_of_their_style_also_at_half_the_frame_rate(style, size):
    context = Context.of(size, style)
    frames = Frames.of(torch.tensor([23]), 23, context)
    expected = [[in_reach(query, key, style, size) for key in range(23)] for query in range(23)]
    assert (~frames.blocked[0]).tolist() == expected
    halved, direct = frames.halved(), Frames.of(torch.tensor([12]), 12, context.halved())
    assert halved.context == direct.context and halved.step == 2
    assert_close(halved.blocked, direct.blocked)


def first_change(encoder: torch.nn.Module, frame: int, total: int = 64) -> int:
    """Return the first output frame that depends on the feature frame ``frame``."""
    x = features(1, total)
    moved = x.clone()
    moved[..., frame] += 1.0
    with torch.no_grad():
        changed = (encoder(x)[0] - encoder(moved)[0]).abs().amax(dim=(0, 1)) > 1e-6
    return int(changed.nonzero()[0])


@pytest.mark.parametrize("unet", [None, 1, [0, 1]])
@pytest.mark.parametrize("causal", [{"conv_context_size": "causal"}, {"conv_context_style": "dcc"}], ids=str)
def test_frames_after_a_chunk_do_not_change_the_chunk(unet, causal):
    """Chunks have 4 frames. With causal subsampling, encoder frame t depends on feature frames up to 4 t."""
    settings = CHUNKED | causal | {"causal_downsampling": True, "time_reduce_idx": unet}
    if isinstance(unet, list):
        settings["time_recovery_idx"] = [3, 2]
    encoder = small_encoder(**settings)
    assert [first_change(encoder, frame) for frame in (16, 28, 29, 44)] == [4, 4, 8, 8]


@pytest.mark.parametrize("change", ["conv_context_size", "causal_downsampling", "att_context_style"])
def test_without_any_one_of_the_causal_settings_later_frames_change_a_chunk(change):
    settings = CHUNKED | {"conv_context_size": "causal", "causal_downsampling": True}
    settings[change] = {"conv_context_size": None, "causal_downsampling": False, "att_context_style": "regular"}[change]
    assert first_change(small_encoder(**settings), 29) < 8


def test_causal_downsampling_moves_the_first_change_by_one_frame():
    quiet = {"n_layers": 1, "conv_kernel_size": 1, "att_context_size": [0, 0]}
    assert first_change(small_encoder(causal_downsampling=True, **quiet), 33) == 9
    assert first_change(small_encoder(**quiet), 33) == 8


@pytest.mark.parametrize("unet", [None, 1])
def test_right_context_adds_its_frames_to_a_chunk_at_each_layer(unet):
    encoder = small_encoder(
        n_layers=2 if unet is None else 3,
        subsampling_factor=1,
        subsampling=None,
        conv_context_style="dcc",
        time_reduce_idx=unet,
        **WITH_RIGHT,
    )
    assert first_change(encoder, 32) == 0  # evaluation is offline by default
    encoder.set_default_att_context_size([8, 4, 2])
    # A layer sees 2 frames of the next chunk. The previous layer has changed that whole chunk.
    assert [first_change(encoder, frame) for frame in (34, 33, 31)] == ([28, 24, 24] if unet is None else [24, 20, 20])


def test_training_draws_one_of_several_sizes_and_evaluation_uses_the_first():
    sizes, probs = [[8, 3], [4, 1], [-1, -1]], [0.25, 0.75, 0.0]
    encoder = small_encoder(att_context_size=sizes, att_context_probs=probs, att_context_style="chunked_limited")
    assert {encoder.contexts.of(training=False) for _ in range(20)} == {Context(8, 0, 4)}
    drawn = Counter(encoder.contexts.of(training=True) for _ in range(400))
    assert set(drawn) == {Context(8, 0, 4), Context(4, 0, 2)}
    assert 240 < drawn[Context(4, 0, 2)] < 360  # 300 are expected; the limits are 7 standard deviations away
    encoder.set_default_att_context_size([4, 1])
    assert encoder.contexts.of(training=False) == Context(4, 0, 2)


def test_training_draws_left_chunk_and_right_independently():
    ranges = [[8], [2, 4, -1], [0, 2]]
    encoder = small_encoder(att_chunk_context_size=ranges, att_context_size=[-1, -1], **WITH_RIGHT)
    assert encoder.contexts.of(training=False) == Context()
    drawn = {encoder.contexts.of(training=True) for _ in range(200)}
    assert drawn == {Context(), *(Context(8, right, chunk) for chunk in (2, 4) for right in (0, 2))}
    x = features(2, 90)
    encoder.train()(x, torch.tensor([90, 61]))[0].square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    "settings, factor, words",
    [
        (
            {"size": [70, 6], "style": "chunked_limited"},
            2,
            r"nearest sizes are \[66, 5\] or \[72, 5\] or \[64, 7\] or \[72, 7\]",
        ),
        ({"size": [70, 0], "style": "chunked_limited"}, 2, r"att_context_size=\[70, 0\].*nearest sizes are \[70, 1\]"),
        ({"size": [-1, 4], "style": "chunked_limited"}, 2, r"nearest sizes are \[-1, 3\] or \[-1, 5\]"),
        ({"size": [10, 3], "style": "chunked_limited"}, 1, r"nearest sizes are \[8, 3\] or \[12, 3\]"),
        ({"size": [8, -1], "style": "chunked_limited"}, 1, "right must be 0 or more"),
        ({"size": [8, 3, 1]}, 1, r"att_context_size=\[8, 3, 1\]: expected \[left, right\]"),
        ({"size": [8, 3], "style": "chunked_limited_with_rc"}, 1, r"needs \[left, chunk, right\]"),
        ({"size": [8, 3, 2], "style": "chunked_limited_with_rc"}, 2, "chunk 3 .* nearest values are 2 or 4"),
        ({"size": [8, 4, 1], "style": "chunked_limited_with_rc"}, 2, "right 1 .* nearest values are 0 or 2"),
        (
            {"size": None, "style": "chunked_limited_with_rc", "chunks": [[70], [1, 2], [0]]},
            2,
            "chunk 1 .* nearest values are 2",
        ),
        ({"size": None, "chunks": [[70], [2], [0]]}, 1, "needs att_context_style='chunked_limited_with_rc'"),
        ({"size": None, "style": "chunked_limited_with_rc", "chunks": [[70], [2]]}, 1, "expected three lists"),
        ({"size": [[4, 4], [8, 8]], "probs": [0.5]}, 1, r"att_context_probs=\[0.5\]"),
        ({"size": [[4, 4], [8, 8]], "probs": [0.5, 0.6]}, 1, "with the sum 1"),
        ({"size": None, "style": "chunked"}, 1, "att_context_style='chunked': expected one of regular"),
    ],
)
def test_invalid_sizes_are_refused_and_the_error_names_the_nearest_valid_sizes(settings, factor, words):
    with pytest.raises(ValueError, match=words):
        ContextSettings(**settings, factor=factor)


def test_a_single_size_ignores_the_probabilities_of_several_sizes():
    assert ContextSettings([8, 3], [0.5, 0.5]).probs == [1.0]


def test_the_nearest_sizes_are_accepted_and_the_default_is_checked_too():
    for size in ([66, 5], [72, 5], [64, 7], [72, 7], [70, 1], [-1, 3]):
        ContextSettings(size, style="chunked_limited", factor=2)
    encoder = small_encoder(time_reduce_idx=1, **CHUNKED)
    with pytest.raises(ValueError, match=r"att_context_size=\[8, 0\]"):
        encoder.set_default_att_context_size([8, 0])
    encoder.set_default_att_context_size(None)
    assert encoder.contexts.default == [8, 3]
