"""`nemo-squeezeformer info`: its numbers equal the numbers of the network, and unknown numbers have a note."""

from __future__ import annotations

import io
import json
import shlex

import pytest
import torch
from nemo.core.classes import Serialization
from omegaconf import OmegaConf
from torch import nn

from nemo_squeezeformer import SqueezeformerEncoder
from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.analysis import counting
from nemo_squeezeformer.analysis import report_text as text
from nemo_squeezeformer.analysis.drawing import drawing
from nemo_squeezeformer.analysis.latency import streams
from nemo_squeezeformer.analysis.parts import parts
from nemo_squeezeformer.analysis.sizes import PUBLISHED
from nemo_squeezeformer.analysis.source import of_recipe
from nemo_squeezeformer.core.frames.spans import build_spans
from nemo_squeezeformer.training.recipes import recipes
from tests.samples.asr_models import asr_model
from tests.samples.pages import blocks
from tests.samples.paths import ROOT

ENCODER = {"d_model": 16, "n_layers": 4, "time_reduce_idx": 1}
TINY = ["squeezeformer_ctc_char", "size=tiny", *(f"model.encoder.{name}={value}" for name, value in ENCODER.items())]
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "feat_in": 20,
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 2,
    "subsampling": "striding",
}


def told(capsys, *given: str) -> dict:
    assert main(["info", *given, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_size_has_the_published_parameters_and_operations(capsys):
    found = told(capsys, "squeezeformer_ctc_bpe", "size=xs")
    published = PUBLISHED["xs"]
    assert found["parameters"] == {"encoder": published.encoder_parameters, "model": None}
    assert found["gflops"] == pytest.approx(published.gflops, abs=0.005)
    assert sum(part["parameters"] for part in found["parts"]) == published.encoder_parameters
    assert sum(part["gflops"] for part in found["parts"]) == pytest.approx(found["gflops"])
    assert any("model.tokenizer.dir" in note for note in found["notes"])


@pytest.mark.parametrize("recipe", recipes())
def test_the_encoder_of_every_recipe_can_be_built_without_other_settings(recipe):
    found = of_recipe(recipe, ["size=tiny", "model.encoder.d_model=16"])
    assert type(found.encoder) is SqueezeformerEncoder and next(found.encoder.parameters()).is_meta
    assert (found.model is None) == bool(found.notes)


def test_a_complete_recipe_is_described_with_its_decoder(capsys):
    found = told(capsys, *TINY)
    assert found["model"] == "EncDecCTCModel" and not found["notes"]
    (decoder,) = found["around_the_encoder"]
    assert decoder == {"name": "decoder", "parameters": 29 * 16 + 29}
    assert found["parameters"]["model"] == found["parameters"]["encoder"] + decoder["parameters"]


def test_operations_grow_with_the_seconds_and_memory_with_the_batch(capsys):
    short, long = (told(capsys, *TINY, "--seconds", s, "--batch", b) for s, b in (("5", "1"), ("20", "4")))
    assert 4 < long["gflops"] / short["gflops"] < 16  # attention grows with the square
    for what in ("inference", "training"):
        assert long["memory"][what] > 4 * short["memory"][what]
    assert long["memory"]["weights"] == short["memory"]["weights"] == 4 * short["parameters"]["model"]


def test_the_drawing_has_a_line_for_each_frame_rate():
    nested = build_spans(16, [3, 7], [14, 10])
    assert drawing(nested, 10, 40) == [
        " 10 ms  features ─┐",
        f" 40 ms            └─ subsampling ─ layers 0-2 ─┬{85 * '─'}+ ─ layers 14-15 ─ encodings",
        f" 80 ms {40 * ' '}└─ reduce ─ layers 3-6 ─┬{33 * '─'}+ ─ layers 10-13 ─ recover ─┘",
        f"160 ms {64 * ' '}└─ reduce ─ layers 7-9 ─ recover ─┘",
    ]
    assert drawing(build_spans(2, None, None), 10, 80)[1] == "80 ms            └─ subsampling ─ layers 0-1 ─ encodings"


@pytest.mark.parametrize("reduce, recover", [([0, 4], [3, 7]), ([1, 1], [6, 6]), (0, 7), ([2], [2])])
def test_corners_of_a_branch_are_below_its_fork_and_its_join(reduce, recover):
    lines = drawing(build_spans(8, reduce, recover), 10, 40)
    assert len(lines) > 2
    for upper, lower in zip(lines[1:], lines[2:]):
        for above, below in {"┬": "└", "+": "┘"}.items():
            columns = [i for i, mark in enumerate(upper) if mark == above]
            assert columns and columns == [i for i, mark in enumerate(lower) if mark == below]


def test_every_parameter_is_in_one_part(capsys):
    nested = ["model.encoder.time_reduce_idx=[0,1]", "model.encoder.time_recovery_idx=[3,2]"]
    found = told(capsys, *TINY, *nested)
    assert sum(part["parameters"] for part in found["parts"]) == found["parameters"]["encoder"]
    rates = [(part["name"], part["frame_ms"]) for part in found["parts"]]
    assert rates[:3] == [("subsampling", 40), ("norm", 40), ("reduce", 80)]
    assert rates[3:7] == [("layer 0", 80), ("reduce", 160), ("layer 1", 160), ("recover", 80)]
    assert rates[7:] == [("layer 2", 80), ("recover", 40), ("layer 3", 40)]


def test_latency_and_caches_equal_those_of_the_streaming_encoder(capsys, tmp_path):
    sizes = [[16, 7], [16, 3], [-1, -1]]
    model = asr_model("ctc", encoder={"streaming": True, "att_context_size": sizes}, preprocessor={"normalize": "NA"})
    model.save_to(str(tmp_path / "model.nemo"))
    found = told(capsys, str(tmp_path / "model.nemo"), "--batch", "3")
    assert [one["att_context_size"] for one in found["streams"]] == sizes[:2]
    assert [one["latency_ms"] for one in found["streams"]] == [320, 160]
    channel, time, _ = model.encoder.get_initial_cache_state(batch_size=3)
    assert found["streams"][0]["cache_bytes"] == {"attention": channel.nbytes, "convolution": time.nbytes}
    assert found["parameters"]["model"] == sum(p.numel() for p in model.parameters())
    offline = told(capsys, *TINY)
    assert offline["streams"] == [] and "has an unlimited look-ahead" in offline["does_not_stream"]


def test_nemos_conformer_is_described(tmp_path, capsys):
    config = tmp_path / "conformer.yaml"
    OmegaConf.save(OmegaConf.create({"model": {"encoder": CONFORMER, "preprocessor": {"features": 20}}}), config)
    found = told(capsys, str(config))
    assert found["encoder"] == "ConformerEncoder" and found["gflops"] > 0.01
    assert found["drawing"][1].endswith("└─ subsampling ─ layers 0-1 ─ encodings")
    assert sum(part["parameters"] for part in found["parts"]) == found["parameters"]["encoder"]
    lower = {"reduction": "pooling", "reduction_position": 1, "reduction_factor": 2}
    OmegaConf.save(OmegaConf.create({"model": {"encoder": CONFORMER | lower}}), config)
    found = told(capsys, str(config), "--seconds", "1")
    assert found["drawing"] is None
    assert "ConformerEncoder lowers the frame rate after layer 1" in " ".join(found["notes"])
    encoder = Serialization.from_config_dict(OmegaConf.create(CONFORMER | {"att_context_size": [8, 3]}))
    ((one,), _) = streams(encoder.to("meta"), 10.0, 1)
    assert one["latency_ms"] > 160  # the look-ahead of the layers adds up


class Pool(nn.Module):
    """An encoder with an unknown structure."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(20, 8)

    def forward(self, audio_signal, length):
        return self.mix(audio_signal.transpose(1, 2)).transpose(1, 2), length


def test_an_encoder_of_another_kind_is_described_by_its_child_modules():
    encoder = Pool().to("meta")
    (only,) = parts(encoder)
    assert only.name == "mix"
    total, (each,) = counting.gflops(encoder, 20, 100, [only])
    assert total == each == pytest.approx(2 * 20 * 8 * 100 / 1e9)
    assert streams(encoder, 10.0, 1) == ([], "Pool does not have NeMo's streaming interface")


def test_memory_is_the_peak_of_the_tensors_that_exist_at_once():
    with counting.Alive() as alive:
        a = torch.zeros(1000, device="meta")
        b = a + 1
        del a
        c = b[:10] * 2  # a view needs no memory
        del b
        torch.zeros(500, device="meta")
    assert alive.most == 4 * 2000 and alive.now == 4 * c.numel()


def test_text_is_plain_when_piped_and_rich_in_a_terminal(capsys):
    pytest.importorskip("rich")
    assert main(["info", *TINY]) == 0
    out = capsys.readouterr().out
    assert "Frame rates\n10 ms  features ─┐\n" in out and "\x1b[" not in out
    assert max(map(len, out.split("Parts")[1].split("Streaming")[0].splitlines())) < 80

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    text.write([text.Section("Parts", rows=[["", "ms"], ["encoder", "40"]], lines=["10 ms  [features]"])], terminal)
    assert "[features]" in terminal.getvalue() and "encoder" in terminal.getvalue()


def test_the_page_on_the_network_shows_what_is_printed(capsys):
    page = ROOT / "docs" / "how-it-works.md"
    command, shown = [block for block in blocks(page) if "info" in block.text or "Frame rates" in block.text]
    assert main(shlex.split(command.text)[1:]) == 0
    assert shown.kind == "text" and shown.text in capsys.readouterr().out


def test_mistakes_are_named(capsys, tmp_path):
    def complaint(*given: str) -> str:
        assert main(["info", *given]) == 2
        return capsys.readouterr().err

    assert "n_heads=5 must divide d_model=96" in complaint(TINY[0], "size=tiny", "model.encoder.n_heads=5")
    assert "squeezeformer_ctc_bqe is not a recipe, not a file" in complaint("squeezeformer_ctc_bqe")
    assert "there is no model file" in complaint(str(tmp_path / "none.nemo"))
    assert "size=s: overrides change a recipe" in complaint(str(tmp_path / "model.nemo"), "size=s")
    (tmp_path / "empty.yaml").write_text("model: {sample_rate: 16000}\n")
    assert "there is no model.encoder" in complaint(str(tmp_path / "empty.yaml"))
    with pytest.raises(SystemExit):
        main(["info", TINY[0], "--seconds", "0"])
    assert "above 0" in capsys.readouterr().err
