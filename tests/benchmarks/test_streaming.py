"""Tests of the benchmarks of streaming: equal encoders, the streamed text, and the quoted tables."""

from __future__ import annotations

import json

import torch
from nemo.core.classes import Serialization
from omegaconf import OmegaConf

from benchmarks.measuring.counts import parameters
from benchmarks.streaming import time as streaming_time
from benchmarks.streaming import wer as streaming_wer
from tests.samples.asr_models import asr_model
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of all table rows of a page of results."""
    lines = (ROOT / "benchmarks" / "results" / page).read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]


def test_the_readme_quotes_the_results_of_streaming():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    seen = {row[0]: row for row in rows_of("streaming_wer.md")[:7]}
    latencies = ["80 ms", "160 ms", "480 ms", "1040 ms"]
    for name, column in (("transducer", 2), ("CTC", 5)):
        wer = [seen[latency][column] for latency in latencies] + [seen["offline"][column + 1]]
        assert f"| WER, {name} | {' | '.join(f'{cell} %' for cell in wer)} |" in readme
    # No text differs between streaming and the whole recording.
    assert all(row[4] == row[7] == "0" for latency, row in seen.items() if latency in latencies)

    timed = rows_of("streaming_time.md")
    timed = timed[: next(i for i, row in enumerate(timed) if "FastConformer" in " ".join(row))]
    for name, batch in (("one stream", "1"), ("eight at once", "8")):
        ratios = [row[5] for row in timed if row[0] in latencies and row[1:3] == [batch, "1"]]
        assert f"| {name} | {' | '.join(ratios)} |" in readme
    ours, theirs = (f"{float(row[4]) / 1e3:.2f} MB" for row in timed if row[0] in ("Squeezeformer", "Conformer"))
    assert f"{ours} of caches to its {theirs}" in readme


def test_streamed_text_is_compared_with_the_text_of_the_whole_recording(tmp_path):
    manifest = write_manifest(tmp_path, utterances=3, seconds=2.0)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    audio, references = [str(tmp_path / row["audio_filepath"]) for row in rows], [row["text"] for row in rows]
    sizes = [[8, 3], [8, 1], [-1, -1]]
    model = asr_model(
        "hybrid", encoder={"streaming": True, "att_context_size": sizes}, preprocessor={"normalize": "NA", "pad_to": 0}
    )
    with torch.inference_mode():
        table = list(streaming_wer.rows(model, audio, references))
    assert [row[:2] for row in table] == [["160 ms", "[8, 3]"], ["80 ms", "[8, 1]"], ["offline", "[-1, -1]"]]
    for _, _, *cells in table[:2]:
        streamed, whole, differ = zip(cells[:3], cells[3:])
        assert max(map(int, differ)) == 0 and streamed == whole
    assert table[2][2] == "-" and float(table[2][3]) > 0


def test_the_encoders_of_a_comparison_have_equal_parameters_chunks_and_left_contexts():
    for rate, configs in streaming_time.RATES.items():
        context = [streaming_time.LEFT[rate], streaming_time.CHUNKS[rate][-1] - 1]
        ours, theirs = (streaming_time.build(config, context) for config in configs.values())
        assert abs(parameters(ours) / parameters(theirs) - 1) < 0.015
        assert ours.streaming_cfg.chunk_size == theirs.streaming_cfg.chunk_size
        assert ours.streaming_cfg.last_channel_cache_size == theirs.streaming_cfg.last_channel_cache_size
        assert ours.streaming_cfg.pre_encode_cache_size == theirs.streaming_cfg.pre_encode_cache_size


def test_each_measured_step_returns_one_chunk():
    config = {
        "_target_": "nemo_squeezeformer.SqueezeformerEncoder",
        "n_layers": 3,
        "d_model": 16,
        "streaming": True,
        "feat_in": 80,
        "att_context_size": [8, 3],
    }
    encoder = Serialization.from_config_dict(OmegaConf.create(config)).eval()
    lengths = []
    encoder.register_forward_hook(lambda module, args, output: lengths.append(output[1].tolist()))
    with torch.inference_mode():
        took = streaming_time.milliseconds({"ours": streaming_time.stepper(encoder, batch=2)}, repeats=4)
    assert lengths == [[4, 4]] * 7
    low, middle, high = took["ours"]
    assert 0 < low <= middle <= high
