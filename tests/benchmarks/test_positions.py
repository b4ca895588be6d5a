"""Tests of the comparison of positions: the trained encoders, the time, and the page."""

from __future__ import annotations

import json

from benchmarks.measuring.encoders import built
from benchmarks.measuring.results import RESULTS
from benchmarks.positions.__main__ import main
from benchmarks.positions.encoders import small_config
from benchmarks.positions.page import page

OUTPUT = RESULTS / "positions"


def test_the_page_is_made_from_the_results(capsys):
    main(["table"])
    assert capsys.readouterr().out == (OUTPUT / "README.md").read_text(encoding="utf-8")


def test_the_encoders_differ_only_in_the_weights_of_positions():
    relative, rotary = (
        {name for name, _ in built(small_config(kind)).named_parameters()} for kind in ("relative", "rotary")
    )
    assert rotary < relative
    assert all(name.endswith(("linear_pos.weight", "pos_bias_u", "pos_bias_v")) for name in relative - rotary)


def test_time_and_memory_are_measured_and_shown(tmp_path):
    main(["time", "--quick", "--output", str(tmp_path)])
    (file,) = tmp_path.glob("time-*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["gflops"]["rotary"] < found["gflops"]["relative"]
    assert found["parameters"]["rotary"] < found["parameters"]["relative"]
    runs = [
        {"positions": kind, "seed": seed, "steps": 5, "batch": 2, "peak_lr": 1e-3}
        | {"wer": {"dev": 50.0 + seed + shift}, "loss": [9.0, 2.0 + shift / 2]}
        for seed in range(3)
        for kind, shift in (("relative", 0.0), ("rotary", -1.5))
    ]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, runs)), encoding="utf-8")
    shown = page(tmp_path)
    assert "| dev | 50.0, 51.0, 52.0 | 48.5, 49.5, 50.5 | 51.0 | 49.5 | -1.5 ± 0.0 |" in shown
    assert "| training loss | 2.0, 2.0, 2.0 | 1.2, 1.2, 1.2 |" in shown
    assert "relative, optimized" in shown and "NeMo" in shown
