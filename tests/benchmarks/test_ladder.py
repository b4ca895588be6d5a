"""Tests of the ladder from Conformer to Squeezeformer: its recipes, the published numbers, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.modules import ConformerEncoder
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ladder import page as ladder_page
from benchmarks.ladder.__main__ import main
from benchmarks.ladder.measure import operations
from benchmarks.ladder.rungs import PAPER, RUNGS, build, encoder_settings
from benchmarks.measuring.figures import digest
from benchmarks.measuring.results import RESULTS as ALL_RESULTS
from nemo_squeezeformer import SqueezeformerEncoder
from nemo_squeezeformer.analysis.sizes import PUBLISHED
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training.recipes import ABLATION, compose, recipes
from tests.samples.encoders import enliven, features
from tests.samples.speech import write_manifest

RESULTS = ALL_RESULTS / "ladder"
TINY = {"d_model": 16, "n_layers": 3, "n_heads": 2, "subsampling_conv_channels": 4, "conv_kernel_size": 7}
OURS_ALONE = {
    *("_target_", "variant", "block", "adaptive_scale", "time_reduce_idx", "time_recovery_idx"),
    *("gradient_checkpointing", "compile", "deep_norm"),
}


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((RESULTS / "ladder.json").read_text())


def test_each_recipe_changes_one_setting_of_the_recipe_before():
    settings = [encoder_settings(rung) for rung in RUNGS]
    changed = [{key: new[key] for key in new if new[key] != old[key]} for old, new in zip(settings, settings[1:])]
    assert changed == [
        {"time_reduce_idx": "auto"},
        {"block": "mf_cf_glu"},
        {"block": "mf_cf"},
        {"block": "squeezeformer"},
        {"subsampling": "dw_striding"},
    ]
    assert [rung.recipe for rung in RUNGS.values()] == recipes(ABLATION)


def test_the_last_recipe_is_squeezeformer_sm():
    plain = compose("squeezeformer_ctc_bpe", ["size=sm", "name=Ablation-5-Depthwise"])
    assert compose("ablation/5_depthwise", ["model.encoder.time_reduce_idx=7"]) == plain
    assert build("Squeezeformer", **TINY | {"n_layers": 16}).span.branches[0].start == 7


def test_the_recipes_accept_a_size_and_an_unknown_recipe_is_refused():
    assert compose("ablation/1_unet", ["size=xs"]).model.encoder.d_model == 144
    with pytest.raises(UserError, match="no recipe ablation/5_depth: did you mean ablation/5_depthwise"):
        compose("ablation/5_depth")


def test_the_first_rung_is_nemos_conformer():
    torch.manual_seed(0)
    settings = encoder_settings("Conformer", **TINY)
    theirs = ConformerEncoder(**{name: value for name, value in settings.items() if name not in OURS_ALONE}).eval()
    enliven(theirs)
    outputs, counted = [], []
    for encoder in (theirs, SqueezeformerEncoder(**{k: v for k, v in settings.items() if k != "_target_"}).eval()):
        encoder.load_state_dict(theirs.state_dict(), strict=True)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x, _ = encoder(audio_signal=features(1, 203, channels=80), length=torch.tensor([203]))
        outputs.append(x)
        counted.append(counter.get_total_flops())
    assert_close(outputs[1], outputs[0], atol=1e-5, rtol=0)
    assert counted[1] == counted[0] != operations(build("U-Net", **TINY).to("meta"), seconds=2)["gflops"] * 1e9
    encoder.layers[-1].norm_out.bias.data.add_(0.1)
    assert (encoder(audio_signal=features(1, 203, channels=80))[0] - outputs[0]).abs().max() > 1e-2


def test_positions_beyond_t_need_half_of_the_operations_of_relative_positions():
    with torch.device("meta"):
        relative, absolute = (
            build("U-Net", **TINY, self_attention_model=kind).eval() for kind in ("rel_pos", "abs_pos")
        )
    counted, least = operations(relative), operations(absolute)
    beyond = counted["gflops"] - counted["counted_by_t"]
    assert counted["gflops"] - least["gflops"] == pytest.approx(2 * beyond, rel=5e-3)
    assert 1e9 * beyond == pytest.approx(2 * 749 * 16 * (16 + 750) * 2 + 2 * 374 * 16 * (16 + 375))


def test_the_operations_equal_the_published_numbers_and_a_new_count(results):
    counts, published = results["operations"][0]["measured"], PUBLISHED["sm"]
    assert counts["Squeezeformer"]["gflops"] == pytest.approx(published.gflops, rel=0.01)
    assert counts["Squeezeformer"]["parameters"] == published.encoder_parameters
    without = counts["Squeezeformer without the U-Net"]["gflops"]
    assert without == pytest.approx(published.gflops_without_unet, rel=0.01)
    for end in ("Conformer", "Squeezeformer"):
        with torch.device("meta"):
            encoder = build(end).eval()
        fresh = operations(encoder) | {"parameters": sum(p.numel() for p in encoder.parameters())}
        assert counts[end] == pytest.approx(fresh, abs=1e-4)


def test_the_shares_equal_the_papers_with_t_positions_and_are_close_to_them_with_all_positions(results):
    published = {name: figure for name, (_, figure) in PAPER.items()}
    assert {name: round(share) for name, share in ladder_page.shares(results, "counted_by_t").items()} == published
    assert {name: round(share) for name, share in ladder_page.shares(results).items()} == {
        "unet": 21,
        "subsampling": 26,
        "depthwise": 20,
    }


def test_the_page_and_the_figure_are_made_from_the_results(results):
    assert (RESULTS / "README.md").read_text() == ladder_page.page(results)
    assert source(RESULTS / "ladder.png") == digest(RESULTS / "ladder.json")


def source(picture: Path) -> str:
    """Return the digest of the results from which a figure was drawn."""
    from PIL import Image

    with Image.open(picture) as opened:
        return str(opened.info["Source"])


def test_one_command_counts_times_draws_and_writes_the_page(tmp_path):
    main(["--quick", "--patience", "0.01", "--output", str(tmp_path)])
    data = json.loads((tmp_path / "ladder.json").read_text())
    assert list(data["time"][0]["measured"]) == list(RUNGS)
    page = (tmp_path / "README.md").read_text()
    assert page == ladder_page.page(data) and all(rung.recipe in page for rung in RUNGS.values())
    assert source(tmp_path / "ladder.png") == digest(tmp_path / "ladder.json")


@pytest.mark.slow
def test_the_command_trains_every_rung_and_continues_a_stopped_run(tmp_path):
    for name, utterances in {"connected_train": 16, "single_train": 8, "connected_dev": 2}.items():
        write_manifest(tmp_path, utterances, name=name).rename(tmp_path / f"{name}.jsonl")
    for name in ("connected_test_seen", "connected_test"):
        write_manifest(tmp_path, 2, name=name).rename(tmp_path / f"{name}.jsonl")
    output, work = tmp_path / "results", tmp_path / "work"
    command = [str(tmp_path), "--quick", "--steps", "10", "--seeds", "1", "--patience", "0.01"]
    command += ["--output", str(output), "--work", str(work)]
    main(command)
    data = json.loads((output / "ladder.json").read_text())
    (trained,) = data["trained"]
    assert list(trained["measured"]) == list(RUNGS)
    assert all(run["finite"] and set(run["wer"]) == {"dev", "seen", "unseen"} for run in trained["measured"].values())
    assert len({run["loss"][-1] for run in trained["measured"].values()}) == len(RUNGS)
    assert (output / "README.md").read_text() == ladder_page.page(data)

    kept = data["trained"][0]["measured"].pop("Squeezeformer")
    (output / "ladder.json").write_text(json.dumps(data))
    main(command)
    again = json.loads((output / "ladder.json").read_text())
    assert again["time"] == data["time"]
    assert again["trained"][0]["measured"]["Squeezeformer"]["loss"] == kept["loss"]
