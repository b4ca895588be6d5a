"""Fixtures for the tests of several folders: a tokenizer, recordings, models, and optional data beside the checkout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.samples.paths import ROOT

# The fixtures import NeMo inside their functions, because the tests of the core run without NeMo.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", default="cpu", choices=["cpu", "cuda", "standin"], help="device of the tests in tests/gpu"
    )


@pytest.fixture(scope="module", autouse=True)
def nemos_state() -> None:
    """Set NeMo's log to its default level, and correct NeMo's state after a failed restore.

    Benchmark programs change the level, some of them when they are imported. With the state after a failed restore,
    NeMo builds models without their data.
    """
    if "nemo.utils" in sys.modules:
        from nemo.utils import logging

        from nemo_squeezeformer.training.schedule import forget_failed_restore

        logging.setLevel(logging.INFO)
        forget_failed_restore()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """Return a folder with a SentencePiece model of the number words. Tests only read it."""
    from tests.samples.asr_models import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def noises(tmp_path_factory) -> list[str]:
    """Return the paths of four recordings of noise with different lengths. Tests only read them."""
    from tests.samples.speech import write_noises

    return write_noises(tmp_path_factory.mktemp("noises"))


@pytest.fixture(scope="session")
def ctc_file(tmp_path_factory) -> Path:
    """Return the .nemo file of a CTC model with letters and full attention. Tests only read it."""
    from tests.samples.asr_models import asr_model

    path = tmp_path_factory.mktemp("ctc") / "ctc.nemo"
    asr_model().save_to(str(path))
    return path


@pytest.fixture(scope="module")
def streaming_hybrid(tokenizer, tmp_path_factory) -> Any:
    """Return a hybrid model with word pieces for three latencies and offline.

    Tests change its decoder. Each test module therefore gets a new model.
    """
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


@pytest.fixture(scope="module")
def hybrid_file(streaming_hybrid, tmp_path_factory) -> Path:
    """Return the .nemo file of ``streaming_hybrid``. Tests only read it."""
    path = tmp_path_factory.mktemp("hybrid") / "model.nemo"
    streaming_hybrid.save_to(str(path))
    return path


@pytest.fixture
def quick_compiler(monkeypatch) -> Iterator[Counter[str]]:
    """Replace the compiler with a fast backend and yield the statistics of compilation.

    The graphs are recorded in the same way as for the real compiler, which takes minutes on a busy CPU.
    """
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
    """Return a folder with weights of a tiny model, and the outputs of the authors' program for these weights."""
    folder = ROOT.parent / "shared" / "reference" / "tensorflow_tiny"
    if not folder.is_dir():
        pytest.skip(f"the outputs of the authors' program are missing: {folder}")
    return folder


@pytest.fixture(scope="session")
def digits() -> Path:
    """Return a folder with real recordings: connected and single digits of six speakers."""
    folder = ROOT.parent / "shared" / "data" / "digits"
    if not folder.is_dir():
        pytest.skip(f"the recordings are missing: {folder}")
    return folder
