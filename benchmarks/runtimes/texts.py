"""Do trained models have the same text in sherpa-onnx and onnx-asr as in NeMo?

    python -m benchmarks.runtimes.texts MODEL.nemo... \
        --manifests DIGITS/connected_test_seen.jsonl SPEECH/dev.jsonl > benchmarks/results/runtimes_texts.md

The program exports each model for each runtime: each decoder, whole utterances, and streams at each latency. It
compares the texts of the first recordings of each manifest. The runtimes are the unmodified packages of PyPI. The
results of a model are in the folder of --work. The program does not measure them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import commit, versions
from benchmarks.measuring.tables import head, line
from benchmarks.runtimes.forms import Form, forms_of, name_of, texts_of

LEAD = np.zeros(80, dtype=np.float32)  # 5 ms of silence, as in the README of a folder for sherpa-onnx
COLUMNS = ["model", "decoder", "form", "runtime", "same features", "own features", "WER of NeMo, %"]
COLUMNS += ["WER of the runtime, %"]
INTRODUCTION = """\
- "same features": the number of recordings for which the runtime and NeMo write the same text from the same features.
  For sherpa-onnx, NeMo gets the features of sherpa-onnx. For onnx-asr, the runtime gets the features of NeMo.
- "own features": the number of recordings for which the runtime writes the text of `transcribe` or `stream`. The
  runtime and NeMo compute the features themselves. Before each recording, sherpa-onnx gets 5 ms of silence.
- If the texts differ in "own features" and agree in "same features", only the features make the difference.
- "`--high-freq=0`": the program `sherpa-onnx-offline` with this option, as in the README of the folder."""


class Spoken(NamedTuple):
    """The recordings of a manifest (N,) and their texts."""

    name: str
    samples: list[np.ndarray]
    texts: list[str]


class Compared(NamedTuple):
    """The texts of NeMo, of NeMo or the runtime for the features of the other, and of the runtime.

    ``pair`` are the texts that must be equal, because the features are the same.
    """

    nemo: list[str]
    pair: tuple[list[str], list[str]]
    runtime: list[str]


def read(manifest: Path, count: int) -> Spoken:
    """Return the first ``count`` recordings of a manifest."""
    import soundfile

    rows = recordings.rows(manifest)[:count]
    return Spoken(
        manifest.stem,
        [soundfile.read(row["audio_filepath"], dtype="float32")[0] for row in rows],
        [row["text"] for row in rows],
    )


def in_sherpa_onnx(form: Form, spoken: Sequence[Spoken], folder: Path) -> Iterator[tuple[str, list[Compared]]]:
    """Yield the name of the runtime and the texts of each manifest. An offline transducer has two bands."""
    from benchmarks.runtimes import sherpa
    from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
    from nemo_squeezeformer.deployment.runtimes.folder import write_folder

    streaming, model = form.milliseconds is not None, form.load()
    bands = (False, True) if sherpa.is_transducer(model) and not streaming else (False,)
    led = [[np.concatenate([LEAD, samples]) for samples in each.samples] for each in spoken]
    given = {band: [sherpa.expected(model, each, streaming, band) for each in led] for band in bands}
    nemo = [texts_of(model, form, each.samples) for each in spoken]
    write_folder("sherpa-onnx", form.load(), folder, GraphSettings(streaming))
    recognizer = sherpa.recognizer(folder, streaming)
    for band in bands:
        found = [
            sherpa.recognized_by_program(folder, each) if band else sherpa.recognized(recognizer, each) for each in led
        ]
        name = "sherpa-onnx, `--high-freq=0`" if band else "sherpa-onnx"
        yield name, [Compared(n, (g, f), f) for n, g, f in zip(nemo, given[band], found)]


def in_onnx_asr(form: Form, spoken: Sequence[Spoken], folder: Path) -> Iterator[tuple[str, list[Compared]]]:
    """Yield the name of the runtime and the texts of each manifest."""
    from benchmarks.runtimes import onnx_asr_texts
    from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings
    from nemo_squeezeformer.deployment.runtimes.folder import write_folder

    model = form.load()
    nemo = [texts_of(model, form, each.samples) for each in spoken]
    features = [[onnx_asr_texts.features_of(model, samples) for samples in each.samples] for each in spoken]
    write_folder("onnx-asr", form.load(), folder, GraphSettings(streaming=False))
    loaded = onnx_asr_texts.load(folder)
    own = [[loaded.recognize(samples) for samples in each.samples] for each in spoken]
    same = [onnx_asr_texts.recognized_from(loaded, f, each.samples) for f, each in zip(features, spoken)]
    yield "onnx-asr", [Compared(n, (n, s), o) for n, s, o in zip(nemo, same, own)]


def rows_of(form: Form, spoken: Sequence[Spoken]) -> Iterator[list[list[str]]]:
    """Yield the row of each manifest for each runtime that runs the form."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    per_feature = form.load().cfg.preprocessor.normalize == "per_feature"
    runs = [in_sherpa_onnx, in_onnx_asr] if form.milliseconds is None and per_feature else [in_sherpa_onnx]
    for run in runs:
        with TemporaryDirectory() as folder:
            for runtime, compared in run(form, spoken, Path(folder, "folder")):
                yield [
                    [
                        *(name_of(form.path), *form.names, runtime),
                        _equal(*texts.pair),
                        _equal(texts.nemo, texts.runtime),
                        f"{100 * word_error_rate(texts.nemo, each.texts):.1f}",
                        f"{100 * word_error_rate(texts.runtime, each.texts):.1f}",
                    ]
                    for each, texts in zip(spoken, compared)
                ]


def _equal(one: Sequence[str], other: Sequence[str]) -> str:
    return f"{sum(a == b for a, b in zip(one, other, strict=True))} of {len(one)}"


def measured(path: Path, spoken: Sequence[Spoken]) -> list[list[list[str]]]:
    """Return the rows of a model for each manifest."""
    tables: list[list[list[str]]] = [[] for _ in spoken]
    for form in forms_of(path):
        for row in rows_of(form, spoken):
            for table, cells in zip(tables, row, strict=True):
                table.append(cells)
    return tables


def results_of(path: Path, spoken: Sequence[Spoken], work: Path) -> dict[str, Any]:
    """Return the results of a model from the file in ``work``. If there is no file, measure the model."""
    results = work / f"texts-{name_of(path)}.json"
    if not results.exists():
        measurement = {"commit": commit(), "versions": installed(), "tables": measured(path, spoken)}
        work.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(measurement, indent=1), encoding="utf-8")
    return json.loads(results.read_text(encoding="utf-8"))


def installed() -> str:
    return f"{versions()}, sherpa-onnx {version('sherpa-onnx')}, onnx-asr {version('onnx-asr')}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.runtimes.texts", __doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".nemo files with a Squeezeformer of this project")
    parser.add_argument("--manifests", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=40, help="number of recordings of each manifest")
    parser.add_argument("--work", type=Path, default=Path("build/runtimes"), help="folder for the results")
    args = parser.parse_args(argv)

    import torch
    from nemo.utils import logging

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    spoken = [read(manifest, args.count) for manifest in args.manifests]
    found = [results_of(path, spoken, args.work) for path in args.models]
    print("# The texts of trained models in sherpa-onnx and onnx-asr\n")
    print("`python -m benchmarks.runtimes.texts` makes this page.\n")
    commits, packages = (", ".join(dict.fromkeys(each[key] for each in found)) for key in ("commit", "versions"))
    print(f"Commits: {commits}. {packages}. All files are float32.\n")
    print(INTRODUCTION)
    for number, each in enumerate(spoken):
        words = sum(len(text.split()) for text in each.texts)
        print(f"\n## {each.name}: {len(each.texts)} recordings, {words} words\n")
        print("\n".join([head(COLUMNS), *(line(row) for results in found for row in results["tables"][number])]))


if __name__ == "__main__":
    main()
