"""What tests of several folders are given: a tokenizer, recordings, models, data that may lie beside the checkout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.samples.paths import ROOT

# NeMo is imported inside the fixtures: the tests of the core run without it.


@pytest.fixture(scope="module", autouse=True)
def nemos_log_level() -> None:
    """NeMo's log says what it says at NeMo's start. Programs that measure silence it for good, at their import even."""
    if "nemo.utils" in sys.modules:
        from nemo.utils import logging

        logging.setLevel(logging.INFO)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """A folder with a SentencePiece model of the number words. Tests only read it."""
    from tests.samples.asr_models import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def noises(tmp_path_factory) -> list[str]:
    """Paths of recordings of noise of four lengths. Tests only read them."""
    from tests.samples.speech import write_noises

    return write_noises(tmp_path_factory.mktemp("noises"))


@pytest.fixture(scope="session")
def ctc_file(tmp_path_factory) -> Path:
    """The .nemo file of a CTC model with letters and full attention. Tests only read it."""
    from tests.samples.asr_models import asr_model

    path = tmp_path_factory.mktemp("ctc") / "ctc.nemo"
    asr_model().save_to(str(path))
    return path


@pytest.fixture(scope="module")
def streaming_hybrid(tokenizer, tmp_path_factory) -> Any:
    """A hybrid with word pieces, of three latencies and offline. Tests set its decoder: each module has its own."""
    import soundfile

    from tests.samples.asr_models import spelling_model
    from tests.samples.speech import RATE, noise
    from tests.samples.streams import LATENCIES

    folder, paths = tmp_path_factory.mktemp("sounds"), []
    for seed in (20, 21):
        paths.append(str(folder / f"{seed}.wav"))
        soundfile.write(paths[-1], noise(3.0, seed), RATE)
    encoder = {"streaming": True, "att_context_size": [*LATENCIES.values(), [-1, -1]]}
    return spelling_model(
        "hybrid", paths, "bpe", tokenizer=tokenizer, preprocessor={"normalize": "NA"}, encoder=encoder
    )


@pytest.fixture
def quick_compiler(monkeypatch) -> Iterator[Counter[str]]:
    """Graphs as the real compiler gets them, run without it: it takes minutes on a busy CPU. Gives its statistics."""
    import torch
    from torch._dynamo.utils import counters

    from nemo_squeezeformer.core import layer_call

    monkeypatch.setattr(layer_call, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    yield counters["stats"]
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def authors_run() -> Path:
    """A folder with weights of a tiny size, and what the authors' own program computed with them."""
    folder = ROOT.parent / "shared" / "reference" / "tensorflow_tiny"
    if not folder.is_dir():
        pytest.skip(f"no outputs of the authors' program in {folder}")
    return folder


@pytest.fixture(scope="session")
def digits() -> Path:
    """A folder with real recordings: connected and single digits of six speakers."""
    folder = ROOT.parent / "shared" / "data" / "digits"
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}")
    return folder
