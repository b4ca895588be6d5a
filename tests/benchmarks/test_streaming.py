"""Tests of the benchmarks of streaming: equal encoders, the streamed text, and the quoted tables."""

from __future__ import annotations

import json

import torch
from nemo.core.classes import Serialization
from omegaconf import OmegaConf

from benchmarks.measuring.counts import parameters
from benchmarks.streaming import time as streaming_time
from benchmarks.streaming import wer as streaming_wer
from benchmarks.streaming import windows as streaming_windows
from tests.samples import quotes
from tests.samples.asr_models import asr_model
from tests.samples.paths import ROOT
from tests.samples.speech import write_manifest


def test_the_page_of_benchmarks_quotes_the_results_of_streaming():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    # No text differs between streaming and the whole recording.
    seen = quotes.cells_of("streaming_wer.md")[:7]
    assert [cells[4] + cells[7] for cells in seen if cells[0] in quotes.LATENCIES] == 4 * ["00"]
    caches = {cells[0]: cells[4] for cells in quotes.cells_of("streaming_time.md") if len(cells) == 5}
    ours, theirs = caches["Squeezeformer"], caches["Conformer"]
    assert f"take {ours} kB with our encoder and {theirs} kB with NeMo's Conformer" in page


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


def test_the_page_of_streams_quotes_the_results_of_windows():
    page = (ROOT / "docs" / "stream.md").read_text(encoding="utf-8")
    _, _, whole, *windows = quotes.cells_of("stream_windows.md")  # after the head and the line below the head
    assert f"| `transcribe` | {whole[1]} % | {1000 * float(whole[2]):.0f} ms |" in page and len(windows) == 4
    for way, wer, compute, utterances, delay in windows:
        latency = way.removeprefix("windows, ").removesuffix(" ms")
        found = utterances.partition("(")[2].rstrip(")")
        (row,) = (line for line in page.splitlines() if line.startswith(f"| windows, `--latency {latency}`"))
        quoted = f"| {wer} % | {1000 * float(compute):.0f} ms | {delay} s | {found} |"
        assert row.endswith(quoted), (row, quoted)


def test_the_recordings_that_are_an_utterance_are_counted(tmp_path):
    manifest = write_manifest(tmp_path, utterances=3, seconds=1.0)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = [row | {"audio_filepath": str(tmp_path / row["audio_filepath"])} for row in rows]
    long = streaming_windows.joined(rows, 16000)
    assert long.spans == [(0.0, 1.0), (2.5, 3.5), (5.0, 6.0)] and len(long.samples) == 3 * 2.5 * 16000
    right = [{"start": 0.1, "end": 0.9}, {"start": 2.6, "end": 3.4}, {"start": 5.2, "end": 5.9}]
    assert streaming_windows.alone(right, long) == 3
    divided = [*right, {"start": 0.95, "end": 0.99}]
    merged = [right[0], {"start": 2.6, "end": 5.9}]
    assert [streaming_windows.alone(found, long) for found in (divided, merged, right[1:], [])] == [2, 1, 2, 0]


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
