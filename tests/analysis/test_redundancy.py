"""``redundancy``: its similarities are the similarities of the outputs of the blocks, without padding."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import nemo
import pytest
import soundfile
import torch
from nemo.core.classes.mixins import AccessMixin
from omegaconf import OmegaConf
from torch.nn.functional import cosine_similarity

from benchmarks.redundancy import __main__ as benchmark
from benchmarks.redundancy import page as benchmark_page
from benchmarks.redundancy.encoders import CONFORMER_NAME, FLAT, UNET
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.analysis.redundancy import Block, measure
from nemo_squeezeformer.analysis.redundancy import untrained as untrained_encoder
from nemo_squeezeformer.analysis.redundancy_plot import Curves, common_milliseconds, panels, rates
from nemo_squeezeformer.commands.redundancy import labels
from tests.samples.asr_models import CLASSES, asr_model
from tests.samples.encoders import on_record
from tests.samples.paths import ROOT
from tests.samples.speech import RATE, noise, write_manifest

RESULTS = ROOT / "benchmarks" / "results" / "redundancy"
SECONDS = [1.3, 0.4, 0.83]
LAYERS = 4
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "feat_in": 80, "n_layers": LAYERS, "d_model": 16, "n_heads": 2, "subsampling_conv_channels": 16,
    "conv_kernel_size": 7, "dropout_pre_encoder": 0.0,
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "conformer": ("ctc", CONFORMER | {"subsampling": "striding", "subsampling_factor": 4}),
    "fastconformer": ("transducer", CONFORMER | {"subsampling": "dw_striding", "subsampling_factor": 8}),
    "squeezeformer": ("hybrid", None),  # this package's encoder, with a temporal U-Net around layers 1 and 2
}
PERIODS = {"conformer": [40] * 5, "fastconformer": [80] * 5, "squeezeformer": [40, 40, 80, 80, 40]}


def model(name: str) -> Any:
    kind, encoder = ENCODERS[name]
    made = asr_model(kind)
    if encoder is None:
        return made
    config = OmegaConf.to_container(made.cfg)
    config["encoder"] = encoder
    return CLASSES[kind, "char"](OmegaConf.create(config)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with three models, a manifest, and the output of the command for all models."""
    folder = tmp_path_factory.mktemp("redundancy")
    rows = []
    for number, seconds in enumerate(SECONDS):
        soundfile.write(folder / f"{number}.wav", noise(seconds, number), RATE, subtype="FLOAT")
        rows.append(json.dumps({"audio_filepath": f"{number}.wav", "duration": seconds}))
    (folder / "rows.jsonl").write_text("\n".join(rows))
    for name in ENCODERS:
        model(name).save_to(str(folder / f"{name}.nemo"))
    assert command(folder, *ENCODERS, "--untrained") == 0
    return folder


def command(folder: Path, *arguments: str, out: str = "out.png") -> int:
    models = [str(folder / f"{name}.nemo") for name in arguments if name in ENCODERS]
    options = [argument for argument in arguments if argument not in ENCODERS]
    data = ["--data", str(folder / "rows.jsonl"), "--device", "cpu"]
    return main(["redundancy", *models, *data, "--output", str(folder / out), *options])


def numbers(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


@torch.inference_mode()
def by_hand(made: Any, padding: bool = False) -> dict[tuple[int, str], float]:
    """Return the mean similarity by block and distance, computed pair by pair from the layer outputs of a padded batch.

    NeMo records the layer outputs. With ``padding``, pairs with padding frames count too.
    """
    sounds = [torch.from_numpy(noise(seconds, number)) for number, seconds in enumerate(SECONDS)]
    batch = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    features, lengths = made.preprocessor(input_signal=batch, length=torch.tensor([len(sound) for sound in sounds]))
    with on_record(interctc={"capture_layers": list(range(LAYERS))}):
        made.encoder(audio_signal=features, length=lengths)
        record = AccessMixin.get_module_registry(made.encoder)[""]
        outputs = [record[f"interctc/layer_output_{i}"][0].transpose(1, 2) for i in range(LAYERS)]
        counts = [record[f"interctc/layer_length_{i}"][0].tolist() for i in range(LAYERS)]
    made.encoder.reset_registry()
    found: dict[tuple[int, str], list[float]] = {}
    for block, (output, count) in enumerate(zip(outputs, counts), start=1):
        for x, valid in zip(output, count):
            for first, second in itertools.combinations(range(len(x) if padding else valid), 2):
                similarity = float(cosine_similarity(x[first], x[second], dim=0))
                found.setdefault((block, "any"), []).append(similarity)
                if second - first <= 4:
                    found.setdefault((block, str(second - first)), []).append(similarity)
    return {key: sum(values) / len(values) for key, values in found.items()}


@pytest.mark.parametrize("name", ENCODERS)
def test_similarities_equal_the_mean_over_single_pairs_of_the_blocks_outputs(folder, name):
    rows = [row for row in numbers(folder / "out.csv") if (row["model"], row["weights"]) == (name, "trained")]
    assert [float(row["frame_ms"]) for row in rows[::5]] == PERIODS[name]
    found = {(int(row["block"]), row["distance_frames"]): float(row["similarity"]) for row in rows}
    expected, padded = by_hand(model(name)), by_hand(model(name), padding=True)
    assert len(expected) == 5 * LAYERS
    for key, similarity in expected.items():
        assert found[key] == pytest.approx(similarity, abs=2e-5), key  # the file has five digits
    for block in range(1, LAYERS + 1):  # control: padding changes the similarities
        assert max(abs(padded[key] - found[key]) for key in found if key[0] == block) > 1e-3


def test_the_input_of_the_first_block_is_block_0(folder):
    made = model("conformer")
    sound = torch.from_numpy(noise(1.0))
    with torch.inference_mode():
        features, lengths = made.preprocessor(input_signal=sound[None], length=torch.tensor([len(sound)]))
        (x,), _ = made.encoder.pre_encode(x=features[..., : lengths[0]].transpose(1, 2), lengths=lengths)
    block = measure(made.preprocessor, made.encoder, [sound])[0]
    assert block.neighbours[3].value == pytest.approx(float(cosine_similarity(x[3:], x[:-3]).mean()), abs=1e-5)
    assert block.frames == len(x) and block.any_two.pairs == len(x) * (len(x) - 1) // 2


@pytest.mark.parametrize("variant", ["nemo", "original"])
def test_padding_of_features_does_not_count(variant):
    made = asr_model("ctc", encoder={"variant": variant})
    sounds = [torch.from_numpy(noise(seconds)) for seconds in (0.5, 0.93)]
    found = []
    for pad_to in (0, 512):
        made.preprocessor.featurizer.pad_to = pad_to
        blocks = measure(made.preprocessor, made.encoder, sounds)
        found.append([block.neighbours[1].value for block in blocks])
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    frames = [math.ceil((100 * seconds + 1) // 1 / 4) for seconds in (0.5, 0.93)]
    assert [block.frames for block in blocks[:2]] == [sum(frames)] * 2
    assert blocks[2].frames == sum(math.ceil(t / 2) for t in frames)


def test_new_random_weights_are_measured_in_addition_to_the_trained_weights(folder):
    rows = numbers(folder / "out.csv")
    trained, untrained = (
        [row["similarity"] for row in rows if (row["model"], row["weights"]) == ("squeezeformer", weights)]
        for weights in ("trained", "untrained")
    )
    assert len(trained) == len(untrained) == 5 * (LAYERS + 1)
    assert trained != untrained
    made = model("squeezeformer")
    first, second = (dict(untrained_encoder(made).named_parameters()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)  # the same at every call


def test_conditions_are_written_and_nothing_is_overwritten_unasked(folder, capsys):
    text = (folder / "out.csv").read_text()
    for condition in ("3 of 3 utterances", "rows.jsonl", f"NeMo {nemo.__version__}", "ConformerEncoder of 4 blocks"):
        assert condition in text
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert command(folder, "conformer") == 2
    assert "out.png exists" in capsys.readouterr().err
    assert (folder / "out.csv").read_text() == text
    assert command(folder, "conformer", "--utterances", "2", out="two.svg") == 0
    assert "# 2 of 3 utterances" in (folder / "two.csv").read_text()


def test_labels_are_file_names_or_paths_if_file_names_are_equal():
    assert labels(["a/one.nemo", "b/two.nemo", "stt_en"]) == ["one", "two", "stt_en"]
    assert labels(["a/one.nemo", "b/one.nemo", "two.nemo"]) == ["a/one.nemo", "b/one.nemo", "two"]


@pytest.mark.parametrize(
    ("out", "missing", "message"),
    [("out.jpg", "", "ends in .png, .pdf, .svg"), ("no/out.png", "", "create it first"),
     ("new.png", "matplotlib", "nemo-squeezeformer[plots]")],
)  # fmt: skip
def test_a_figure_that_cannot_be_written_is_refused_at_once(folder, out, missing, message, monkeypatch, capsys):
    if missing:
        find = sys.modules["importlib.util"].find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == missing else find(name))
    assert command(folder, "conformer", out=out) == 2
    assert message in capsys.readouterr().err


def test_an_encoder_without_blocks_is_refused_by_its_name(folder, capsys):
    made = model("conformer")
    config = OmegaConf.to_container(made.cfg)
    one = {"filters": 16, "repeat": 1, "kernel": [3], "stride": [1], "dilation": [1], "dropout": 0.0, "residual": False}
    config["encoder"] = {"_target_": "nemo.collections.asr.modules.ConvASREncoder", "feat_in": 80, "jasper": [one]}
    config["encoder"] |= {"activation": "relu", "conv_mask": True}
    CLASSES["ctc", "char"](OmegaConf.create(config)).save_to(str(folder / "jasper.nemo"))
    arguments = ["redundancy", str(folder / "jasper.nemo"), "--data", str(folder / "0.wav")]
    assert main([*arguments, "--output", str(folder / "jasper.png")]) == 2
    assert "ConvASREncoder has no list `layers`" in capsys.readouterr().err
    assert not list(folder.glob("jasper.[pc]*"))


def blocks(*periods: float) -> list[Block]:
    made = [Block(number, ms) for number, ms in enumerate(periods)]
    for block in made:
        block.add(torch.randn(9, 3, generator=torch.Generator().manual_seed(block.number)))
    return made


def test_models_with_different_frame_rates_are_also_compared_at_equal_distances_in_time():
    full, halved = Curves("a", blocks(40, 40, 40)), Curves("b", blocks(40, 80, 40))
    assert common_milliseconds([full]) == []
    assert common_milliseconds([full, halved]) == [80, 160]
    drawn = panels([full, halved])
    inside, outside = halved.blocks[1], full.blocks[1]
    assert drawn["80 ms apart"](inside) == inside.neighbours[1].value
    assert drawn["80 ms apart"](outside) == outside.neighbours[2].value
    assert rates(halved.blocks) == "40 ms a frame, hollow: 80 ms"


def row(similarity: float, ms: int = 40) -> dict[str, str]:
    return {"similarity": str(similarity), "frame_ms": str(ms)}


@pytest.mark.parametrize(
    ("deep", "inside", "verdicts"), [(0.95, 0.7, "yes yes yes yes yes"), (0.5, 0.99, "no no no no no")]
)
def test_the_page_shows_agreement_and_disagreement_with_the_paper(deep, inside, verdicts):
    rows: benchmark_page.Rows = {}
    for block, distance in itertools.product(range(7), ("1", "2", "3", "4", "any")):
        growing = deep if block > 3 else 0.7
        for name in (CONFORMER_NAME, FLAT):
            rows[name, "trained", block, distance] = row(growing - 0.01 * int(distance.replace("any", "5")))
        branch = 2 < block < 6
        rows[UNET, "trained", block, distance] = row(inside if branch else growing, 80 if branch else 40)
    lines = benchmark_page.beside_the_paper(rows)
    assert " ".join(line.split("|")[-2].strip() for line in lines if line.startswith("| ")) == f"agrees --- {verdicts}"


def test_the_page_is_generated_from_its_numbers():
    assert benchmark_page.page(RESULTS) == (RESULTS / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_figure_and_its_page_are_made_from_recordings_only(tmp_path):
    for name in ("connected_train", "single_train", *(Path(file).stem for file in benchmark.MEASURED)):
        write_manifest(tmp_path, 12, name=name).rename(tmp_path / f"{name}.jsonl")
    tiny = ["--encoder", '{"d_model": 8, "subsampling_conv_channels": 4}', "--steps", "1", "--utterances", "3"]
    folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "results")]
    benchmark.main([str(tmp_path), *tiny, *folders])
    page = (tmp_path / "results" / "README.md").read_text()
    assert all(page.count(f"| {name} |") == 7 for name in benchmark.ENCODERS)
    assert "3 of 36 utterances" in page and "\\*" in page
    rows = numbers(tmp_path / "results" / "similarity.csv")
    assert len(rows) == 3 * 2 * 9 * 5
