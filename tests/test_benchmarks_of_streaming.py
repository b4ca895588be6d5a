"""The programs that measure streams compare what they say they compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from nemo.core.classes import Serialization
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import streaming_time
import streaming_wer

from tests.asr_models import asr_model
from tests.speech import write_manifest


def test_streamed_text_stands_beside_the_text_of_the_whole(tmp_path):
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
        assert abs(streaming_time.parameters(ours) / streaming_time.parameters(theirs) - 1) < 0.015
        assert ours.streaming_cfg.chunk_size == theirs.streaming_cfg.chunk_size
        assert ours.streaming_cfg.last_channel_cache_size == theirs.streaming_cfg.last_channel_cache_size
        assert ours.streaming_cfg.pre_encode_cache_size == theirs.streaming_cfg.pre_encode_cache_size


def test_a_step_of_the_comparison_moves_the_stream_on():
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
