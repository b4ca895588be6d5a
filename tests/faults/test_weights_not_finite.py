"""Tests that every program that loads weights names weights and statistics that are not finite."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from nemo_squeezeformer import plain
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.finite_weights import not_finite
from nemo_squeezeformer.training.initial_weights import check
from nemo_squeezeformer.transcription.models import restore
from tests.samples.asr_models import asr_model
from tests.samples.damaged_models import read, with_weights, write
from tests.training.test_initial_weights import recipe

STATISTICS = "encoder.layers.1.conv.batch_norm.running_var"


def spoil(model: Path, path: Path, value: float) -> None:
    """Write a copy of a model in which one statistic has another value."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[STATISTICS][3] = value

    write(path, with_weights(read(model), change))


@pytest.fixture
def spoiled(ctc_file, tmp_path) -> Path:
    """A model with one statistic that is NaN."""
    spoil(ctc_file, tmp_path / "spoiled.nemo", float("nan"))
    return tmp_path / "spoiled.nemo"


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinite_statistic_is_refused(value, ctc_file, tmp_path):
    spoil(ctc_file, tmp_path / "spoiled.nemo", value)
    with pytest.raises(UserError, match="1 of .* tensors contain NaN or infinite values"):
        restore(str(tmp_path / "spoiled.nemo"), torch.device("cpu"))


def test_every_command_refuses_or_names_statistics_that_are_not_finite(spoiled, noises, tmp_path, capsys):
    for command in (
        ["transcribe", str(spoiled), noises[0]],
        ["stream", str(spoiled), noises[0]],
        ["export", str(spoiled), "--output", str(tmp_path / "out.onnx")],
        ["export", str(spoiled), "--format", "safetensors", "--output", str(tmp_path / "out")],
        ["redundancy", str(spoiled), "--data", noises[0], "--output", str(tmp_path / "out.png")],
    ):
        assert main(command) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "nemo-squeezeformer: error:" in line]
        assert f"{spoiled}: 1 of" in line and f"contain NaN or infinite values ({STATISTICS})" in line
    assert main(["info", str(spoiled)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The model cannot transcribe: 1 of" in shown and STATISTICS in shown
    assert [path.name for path in tmp_path.iterdir()] == ["spoiled.nemo"]


def test_initial_weights_that_are_not_finite_are_refused(spoiled, tmp_path):
    model = asr_model()
    with pytest.raises(UserError, match=r"init_from_nemo_model=.*1 of .* tensors contain NaN"):
        check(recipe(model, init_from_nemo_model=str(spoiled)), model)
    weights = model.state_dict()
    weights["decoder.decoder_layers.0.bias"] = weights["decoder.decoder_layers.0.bias"] * float("nan")
    torch.save({"state_dict": weights}, tmp_path / "spoiled.ckpt")
    with pytest.raises(UserError, match=r"init_from_ptl_ckpt=.*1 of .* tensors contain NaN"):
        check(recipe(model, init_from_ptl_ckpt=str(tmp_path / "spoiled.ckpt")), model)


def test_a_model_that_is_not_finite_is_not_saved(tmp_path):
    model = asr_model()
    with torch.no_grad():
        model.encoder.layers[0].conv.batch_norm.running_mean[0] = float("nan")
    with pytest.raises(UserError, match="1 of .* tensors contain NaN"):
        plain.save(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_imported_weights_that_are_not_finite_are_refused(tmp_path, capsys):
    pytest.importorskip("h5py")
    from tests.samples import original_weights
    from tests.samples.asr_models import write_tokenizer

    tokenizer = write_tokenizer(tmp_path / "tokenizer") / "tokenizer.model"
    small = {"d_model": 16, "n_layers": 3, "n_heads": 2, "conv_kernel_size": 7, "vocabulary_size": 23}
    arrays = original_weights.arrays(**small)
    name = next(name for name in arrays if name.endswith("gamma:0"))
    arrays[name] = arrays[name] * float("nan")
    original_weights.save(tmp_path / "weights.h5", arrays)
    output = tmp_path / "out.nemo"
    given = ["import", str(tmp_path / "weights.h5"), "--tokenizer", str(tokenizer), "--output", str(output)]
    assert main(given) == 2
    assert "numbers that are not finite" in capsys.readouterr().err and not output.exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_all_floating_point_types_are_checked(dtype):
    good, bad = torch.ones(3, 3), torch.ones(3, 3)
    bad[1, 1] = float("nan")
    tensors = {"good": good.to(dtype), "bad": bad.to(dtype), "empty": torch.zeros(0), "whole": torch.ones(2).long()}
    assert not_finite(tensors) == ["bad"]
    assert not_finite({"whole": torch.ones(2).long()}) == []


def test_the_check_takes_less_time_than_reading_the_weights(tmp_path):
    weights = {str(number): torch.randn(512, 2048) for number in range(30)}
    torch.save(weights, tmp_path / "weights.ckpt")
    reading, checking = [], []
    for _ in range(3):
        start = time.perf_counter()
        loaded = torch.load(tmp_path / "weights.ckpt")
        reading.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert not_finite(loaded) == []
        checking.append(time.perf_counter() - start)
    assert min(checking) < 3 * min(reading)
