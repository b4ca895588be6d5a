"""Tests of the speed benchmark: the measurements, the continuation of a stopped run, the page and the quoted table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.measuring.encoders import Encoders, missing
from benchmarks.measuring.figures import digest
from benchmarks.measuring.forms import shown
from benchmarks.measuring.results import RESULTS as ALL_RESULTS
from benchmarks.measuring.results import Results, read
from benchmarks.speed import check as speed_check
from benchmarks.speed import operations as speed_operations
from benchmarks.speed import page as speed_page
from benchmarks.speed import readme as speed_readme
from benchmarks.speed.__main__ import main
from benchmarks.speed.plan import QUICK, Plan
from tests.samples.paths import ROOT

RESULTS = ALL_RESULTS / "speed"
CONDITIONS = {"machine": "one", "size": "quick"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    """Return a folder with the results of a quick run."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("speed")
    names = ["in-tree", "ours", "ours, optimised", "Conformer"]
    main(["all", "--quick", "--devices", "cpu", "--output", str(folder), "--encoders", *names])
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
def test_one_command_measures_everything_and_makes_the_page(quick):
    ((stem, data),) = read(quick).items()
    here = {"ours", "ours, optimised", "Conformer"} | ({"in-tree"} - set(missing()))
    for part in ("inference", "memory"):
        assert {row["seconds"] for row in data[part]} == {1, 2}
        for row in data[part]:
            assert set(row["measured"]) == here
            assert row["left_out"] == missing()
    steps, memory = data["training"][0]["measured"], data["training_memory"][0]["measured"]
    trained = here - {"ours, optimised"}
    assert set(steps) == set(memory) == trained | {f"{name}, bf16" for name in trained}
    assert all(0 < row["ms"][0] <= row["ms"][1] <= row["ms"][2] and row["turns"] == 2 for row in steps.values())
    # The features of one second of audio alone need more memory.
    assert all(row["MiB"] > 0.1 for row in memory.values())
    text = (quick / "README.md").read_text()
    assert text == speed_page.page(quick)
    assert all(f"| {shown(name)} |" in text for name in here)
    assert all(reason in text for reason in missing().values())
    assert f"![{stem}-time.png]" in text and f"![{stem}-memory.png]" in text


@pytest.mark.slow
def test_all_variants_of_a_network_have_equal_outputs(quick):
    (data,) = read(quick).values()
    rows = data["operations"][0]["measured"]
    assert all(row.get("difference", 0.0) < 1e-5 for row in rows.values()), rows
    assert rows["ours, optimised"]["difference"] > 0.0  # the optimized encoder computes in another way


@pytest.mark.slow
def test_existing_measurements_are_repeated_only_with_again(quick, capsys):
    (path,) = quick.glob("*.json")
    before = path.read_text()
    wanted = ["inference", "--quick", "--devices", "cpu", "--output", str(quick), "--seconds", "1", "--batches", "1"]
    main([*wanted, "--encoders", "ours"])
    assert path.read_text() == before
    main([*wanted, "--encoders", "ours, local"])
    row = next(row for row in json.loads(path.read_text())["inference"] if row["seconds"] == row["batch"] == 1)
    assert {"ours", "ours, local"} <= set(row["measured"])  # both encoders are measured alternately
    main([*wanted, "--encoders", "ours", "--again"])
    assert path.read_text() != before
    path.write_text(before)


def test_encoders_that_need_too_much_memory_or_time_are_left_out_with_the_reason(tmp_path):
    plan = Plan(memory_limit=12.0, longest_call=60.0)
    assert plan.left_out(300, 8, training=False)["Conformer"] == "would need about 55 GiB of memory"
    assert set(plan.left_out(300, 8, training=False)) - {"in-tree"} == {
        "ours, plain",
        "Conformer",
        "Conformer, SDPA",
        "FastConformer",
    }
    assert set(plan.left_out(60, 8, training=False)) == set(missing())
    results, key = Results(tmp_path / "cpu.json", CONDITIONS, "a"), {"threads": 1, "batch": 1}
    for seconds, ms in ((30, 700.0), (120, 10_000.0)):
        measured = {name: {"ms": [ms, ms, ms]} for name in ("in-tree", "ours")}
        results.add("inference", key | {"seconds": seconds}, measured, {})
    assert plan.too_long(results, key | {"seconds": 120}) == {}
    assert plan.too_long(results, key | {"seconds": 300}) == {"in-tree": "would take up to 62 s a call"}


def test_operations_of_a_fourth_length_are_interpolated_from_three_lengths():
    encoder = Encoders("quick").build("ours", counted=True)
    three = speed_operations.counts(encoder, QUICK.counted_at, "cpu")
    (five,) = speed_operations.counts(encoder, (5,), "cpu")
    assert speed_operations.gflops_at(5, list(QUICK.counted_at), three) == pytest.approx(five, rel=0.02)
    assert abs(five / three[0] - 5) > 0.5  # attention grows faster than the length


@pytest.mark.skipif("in-tree" in missing(), reason="this NeMo has no Squeezeformer")
def test_the_check_names_an_encoder_that_is_too_slow(capsys):
    assert speed_check.check("quick", {1: {"ours": 0.0, "ours, optimised": 0.0}}, patience=0.0) == []
    (wrong,) = speed_check.check("quick", {1: {"ours": 0.0, "ours, optimised": 1e6}}, patience=0.0)
    assert wrong.startswith("our Squeezeformer, optimized is ") and "but 1000000.0 times is required" in wrong
    assert "our Squeezeformer, 1 s: " in capsys.readouterr().out


@pytest.mark.skipif("in-tree" not in missing(), reason="this NeMo has a Squeezeformer")
def test_the_check_fails_without_nemos_squeezeformer():
    with pytest.raises(SystemExit, match="2.7.3 is the last"):
        speed_check.main([])


def test_the_page_of_speed_is_made_from_its_files():
    assert (RESULTS / "README.md").read_text() == speed_page.page(RESULTS)


def test_the_figures_of_speed_are_drawn_from_its_files():
    from PIL import Image

    files = sorted(RESULTS.glob("*.json"))
    assert files
    for path in files:
        for what in ("time", "memory"):
            with Image.open(RESULTS / f"{path.stem}-{what}.png") as picture:
                assert picture.info["Source"] == digest(path)


def test_the_page_of_benchmarks_quotes_the_speed():
    assert speed_readme.quoted(RESULTS) in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_speed_check_requires_smaller_ratios_than_were_measured():
    for row in read(RESULTS)[speed_readme.QUOTED]["inference"]:
        if row["threads"] == row["batch"] == 1:
            took = {name: held["ms"][1] for name, held in row["measured"].items()}
            for name, least in speed_check.LEAST.get(row["seconds"], {}).items():
                assert 0.5 < least / (took["in-tree"] / took[name]) < 0.9, (row["seconds"], name)
