"""Tests of lengths and features that do not fit together: the error names both numbers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from nemo_squeezeformer.core.frames import entrance
from nemo_squeezeformer.core.frames.entrance import checked_lengths
from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from tests.samples.encoders import features, small_encoder

T = 37
FORMS: dict[str, dict[str, Any]] = {
    "dw_striding": {},
    "U-Net": {"time_reduce_idx": 1},
    "striding": {"subsampling": "striding"},
    "stacking": {"subsampling": "stacking"},
    "no subsampling": {"subsampling": None},
    "parts of the batch": {"subsampling_conv_chunking_factor": 2},
    "original": {"variant": "original"},
    "local attention": {"self_attention_model": "rel_pos_local_attn", "att_context_size": [4, 4]},
    "compiled": {"compile": True},  # the check is before the first layer, so nothing is compiled
    "streaming": {"streaming": True, "att_context_size": [8, 3]},
}
WRONG: dict[str, tuple[Any, str]] = {
    "a length for two utterances": ([T], r"shape \(1,\) for a batch of 2 utterances"),
    "three lengths for two utterances": ([T, 20, 5], r"shape \(3,\) for a batch of 2 utterances"),
    "no lengths": ([], r"shape \(0,\) for a batch of 2 utterances"),
    "a number": (T, r"shape \(\) for a batch of 2 utterances"),
    "a column": ([[T], [20]], r"shape \(2, 1\) for a batch of 2 utterances"),
    "a length above T": ([T, T + 1], rf"length {T + 1} of utterance 1 in a batch of {T} feature frames"),
    "far above T": ([10**12, 1], rf"length {10**12} of utterance 0 in a batch of {T} feature frames"),
    "a negative length": ([-3, T], rf"length -3 of utterance 0 in a batch of {T} feature frames: expected 0 to {T}"),
    "a fraction": ([T, 20.5], "length 20.5 of utterance 1 is not a whole number of feature frames"),
    "relative lengths": ([1.0, 0.5], rf"0.5 .* multiply a relative length by {T}"),
    "NaN": ([float("nan"), 1.0], rf"length nan of utterance 0 in a batch of {T}"),
    "infinity": ([float("inf"), 1.0], rf"length inf of utterance 0 in a batch of {T}"),
    "a mask": ([True, False], "dtype torch.bool"),
}


@pytest.mark.parametrize("lengths, message", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_lengths_that_do_not_fit_are_refused(settings, lengths, message):
    encoder, x, lengths = small_encoder(**settings), features(2, T), torch.tensor(lengths)
    with pytest.raises(ValueError, match=message):
        encoder(x, lengths)
    with pytest.raises(ValueError, match=message):
        encoder.pre_encode(x.transpose(1, 2), lengths)
    if "streaming" in settings:
        with pytest.raises(ValueError, match=message):
            encoder(x, lengths, encoder.init_state(2))


@pytest.mark.parametrize("shape", [(2, 20, 0), (0, 20, T), (0, 20, 0)])
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_an_empty_batch_is_refused(settings, shape):
    encoder, lengths = small_encoder(**settings), torch.zeros(shape[0], dtype=torch.long)
    for given in (lengths, None):
        with pytest.raises(ValueError, match=f"a batch of {shape[0]} utterances with {shape[2]} feature frames"):
            encoder(torch.zeros(shape), given)


@pytest.mark.parametrize("shape", [(2, 19, T), (2, 21, T), (20, T), (2, T, 20)])
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_features_with_another_number_of_channels_are_refused(settings, shape):
    with pytest.raises(ValueError, match=r"features of shape .*: expected \(batch, 20, frames\).* feat_in=20"):
        small_encoder(**settings)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_whole_lengths_from_0_to_t_are_accepted_in_every_dtype(settings, dtype):
    encoder, x = small_encoder(**(settings | {"compile": False})), features(3, T)
    lengths = torch.tensor([T, 0, 20])
    expected, got = encoder(x, lengths), encoder(x, lengths.to(dtype))
    assert got[1].dtype == torch.int64
    assert_close(got, expected, atol=0, rtol=0)
    assert int(got[1][1]) == 0 and got[0].isfinite().all()
    assert_close(encoder(x), encoder(x, torch.full((3,), T)), atol=0, rtol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", FORMS.values(), ids=FORMS)
def test_features_of_inference_mode_train_an_encoder(settings, training):
    encoder = small_encoder(**(settings | {"compile": False})).train(training)
    gradients: list[Tensor] = []
    with torch.inference_mode():
        made, lengths = features(2, T), torch.tensor([T, 20])
    for x in (made, features(2, T)):
        encoder.zero_grad()
        encoder(x, lengths)[0].square().sum().backward()
        gradients.append(encoder.layers[0].conv.pointwise_conv1.weight.grad.clone())
    assert_close(*gradients, atol=0, rtol=0)


def test_features_are_copied_only_if_autograd_records():
    with torch.inference_mode():
        made = features(2, T)
        assert entrance.recordable(made) is made
    with torch.no_grad():
        assert entrance.recordable(made) is made
    assert entrance.recordable(made) is not made and not entrance.recordable(made).is_inference()
    x = features(2, T)
    assert entrance.recordable(x) is x


def test_the_original_features_check_the_lengths_of_the_samples():
    mel = OriginalMelSpectrogram()
    for lengths, message in (([5], "batch of 2"), ([400, 401], "401 .* 400 samples"), ([1.5, 400.0], "1.5 .* samples")):
        with pytest.raises(ValueError, match=message):
            mel(torch.zeros(2, 400), torch.tensor(lengths))
    assert mel(torch.zeros(2, 400), torch.tensor([0.0, 400.0]))[1].tolist() == [0, 3]
    assert mel(torch.zeros(1, 0), torch.tensor([0]))[1].tolist() == [0]


def test_a_recorded_graph_reads_no_values(monkeypatch):
    def refuse(*given: Any) -> None:
        raise AssertionError("a value was read")

    monkeypatch.setattr(entrance, "_check_values", refuse)
    x, lengths = features(2, T), torch.tensor([T, 20])
    with pytest.raises(AssertionError):
        checked_lengths(x, lengths, dim=2)
    check: Callable[[Tensor, Tensor], Tensor] = lambda x, lengths: checked_lengths(x, lengths, dim=2) + 0  # noqa: E731
    assert_close(torch.compile(check, backend="eager", fullgraph=True)(x, lengths), lengths)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(check, (x, lengths), check_trace=False)
    assert_close(traced(features(3, T), torch.tensor([1, 2, 3])), torch.tensor([1, 2, 3]))
    by_row = torch.func.vmap(lambda x, n: check(x[None], n[None])[0])(x, lengths)
    assert_close(by_row, lengths)


def test_a_compiled_encoder_checks_shapes():
    with pytest.raises(Exception, match=r"shape \(1,\) for a batch of 2 utterances"):
        torch.compile(small_encoder(n_layers=1), backend="eager")(features(2, T), torch.tensor([T]))


def test_other_devices_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(entrance, "_check_values", lambda *given: pytest.fail("a value was read"))
    x, lengths = features(2, T).to("meta"), torch.tensor([T, 20]).to("meta")
    assert checked_lengths(x, lengths, dim=2).device.type == "meta"


def test_the_checks_take_a_small_part_of_a_step_of_a_stream():
    encoder = small_encoder(streaming=True, att_context_size=[8, 3], n_layers=4)
    x, lengths, state = features(1, 16), torch.tensor([16]), encoder.init_state(1)

    def seconds(call: Callable[[], Any]) -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    def check() -> None:
        for _ in range(10):
            entrance.checked_features(x, 20)
            entrance.refuse_empty(x, 2)
            checked_lengths(x, lengths, 2)

    with torch.inference_mode():
        steps, checks = zip(*((seconds(lambda: encoder(x, lengths, state)), seconds(check) / 10) for _ in range(40)))
    assert median(checks) < 0.02 * median(steps)  # about 0.4 % for this small encoder; a real encoder takes longer
