"""The time, memory and size of our CTC models and of NeMo's FastConformer in sherpa-onnx, on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.runtimes

The program writes results/runtimes.md. All models have random weights and the same tokens. sherpa-onnx from PyPI
computes the features, the network and the greedy search. The models run alternately in one process. The time is
processor time. The measurements of a size are in the folder of --work. The program does not measure them again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import commit, processor, versions
from benchmarks.measuring.memory import peak_in_a_process
from benchmarks.measuring.results import RESULTS
from benchmarks.measuring.tables import head, line
from benchmarks.measuring.timing import interleaved, quartiles
from benchmarks.runtimes.folders import ENCODERS, FASTCONFORMER, written

RATE = 16000
LENGTHS = (2, 5, 15, 60)  # seconds
MEMORY = (15, 60)
REFERENCE = "FastConformer"


def noise(seconds: float) -> Any:
    import numpy as np

    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(int(seconds * RATE))).astype(np.float32)


def load(folder: Path) -> Any:
    import sherpa_onnx

    recognizer: Any = sherpa_onnx.OfflineRecognizer
    return recognizer.from_nemo_ctc(str(folder / "model.onnx"), str(folder / "tokens.txt"), num_threads=1)


def recognize(recognizer: Any, samples: Any) -> None:
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, samples)
    recognizer.decode_stream(stream)


def load_and_recognize(folder: Path, seconds: float) -> None:
    recognize(load(folder), noise(seconds))


def peak(folder: Path, seconds: float) -> float:
    """Return the peak memory of loading the model and recognizing one utterance, in MiB, in a new process."""
    prepare: Callable[[], Callable[[], object]] = partial(partial, load_and_recognize, folder, seconds)
    return peak_in_a_process(prepare, threads=1)


def times(folders: dict[str, Path], lengths: list[int], fewest: int) -> dict[int, dict[str, list[float]]]:
    """Return the quartiles of the seconds of each model, by length and name."""
    recognizers, found = {name: load(folder) for name, folder in folders.items()}, {}
    for seconds in lengths:
        samples = noise(seconds)
        calls = {name: partial(recognize, recognizer, samples) for name, recognizer in recognizers.items()}
        took = interleaved(calls, patience=1.0, fewest=fewest, most=9, clock=time.thread_time)
        found[seconds] = {name: quartiles(values) for name, values in took.items()}
    return found


def measure(size: str, work: Path, lengths: list[int], fewest: int) -> dict[str, Any]:
    """Return the measurements of a size: for each model the parameters, times, memory and size on disk."""
    folders: dict[str, Path] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in ENCODERS:
        made, parameters = written(name, size, work)
        for precision, folder in made.items():
            folders[f"{name}, {precision}"] = folder
            files = [folder / file for file in ("model.onnx", "tokens.txt")]
            found[f"{name}, {precision}"] = {
                "parameters": parameters,
                "megabytes": sum(file.stat().st_size for file in files) / 1e6,
                "mib": {str(s): peak(folder, s) for s in MEMORY if s in lengths},
                "seconds": {},
            }
    before = os.getloadavg()[0]
    for seconds, of in times(folders, lengths, fewest).items():
        for key, values in of.items():
            found[key]["seconds"][str(seconds)] = values
    return {"commit": commit(), "load": f"{before:.0f} to {os.getloadavg()[0]:.0f}", "models": found}


def section(size: str, measured: dict[str, Any]) -> list[str]:
    """Return the section of a size on the page."""
    models = measured["models"]
    lengths, memory = (list(models[f"{REFERENCE}, float32"][of]) for of in ("seconds", "mib"))
    columns = [f"{s} s: time per second of audio" for s in lengths] + [f"{s} s: peak memory, MiB" for s in memory]
    lines = [
        f"## Size {size}\n\nCommit {measured['commit']}. Load average of the machine: {measured['load']}.\n",
        head(["model", "parameters of the encoder", *columns, "size on disk, MB"]),
    ]
    for key, of in models.items():
        reference = models[f"{REFERENCE}, {key.rpartition(', ')[2]}"]["seconds"]
        cells = []
        for seconds in lengths:
            low, median, high = (1e3 * value / int(seconds) for value in of["seconds"][seconds])
            cells.append(
                f"{median:.2f} ms ({low:.2f}-{high:.2f}), {reference[seconds][1] / of['seconds'][seconds][1]:.2f}x"
            )
        cells += [f"{of['mib'][s]:.0f}" for s in memory]
        lines.append(line([key, f"{of['parameters']:,}", *cells, f"{of['megabytes']:.1f}"]))
    return [*lines, ""]


def main() -> None:
    parser = command_line("benchmarks.runtimes", __doc__)
    parser.add_argument("--sizes", nargs="+", default=["xs", "s"], choices=FASTCONFORMER)
    parser.add_argument("--seconds", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--calls", type=int, default=3, help="smallest number of calls for short audio")
    parser.add_argument("--work", type=Path, default=Path("build/runtimes"), help="folder for the exported models")
    parser.add_argument("--output", type=Path, default=RESULTS / "runtimes.md")
    parser.add_argument("--only-export", action="store_true", help="export the models and measure nothing")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    if args.only_export:
        for size in args.sizes:
            for name in ENCODERS:
                written(name, size, args.work)
        return
    from importlib.metadata import version

    lines = [
        "# Our graphs and NeMo's FastConformer in sherpa-onnx\n\n`python -m benchmarks.runtimes` makes this page.\n",
        f"{processor()}, one thread. {versions()}, sherpa-onnx {version('sherpa-onnx')}.\n",
        "All models are offline CTC models with random weights. The time is the processor time of features, network",
        "and greedy search, divided by the length of the audio. A cell shows the median of alternate calls, with the",
        "quartiles in brackets. The factor is the speed relative to FastConformer of the same precision. The peak",
        "memory is the growth of a new process that loads the model and recognizes one utterance. Int8 is the dynamic",
        "quantization of the export for all models.\n",
    ]
    for size in args.sizes:
        results = args.work / f"{size}.json"
        if not results.exists():
            results.write_text(json.dumps(measure(size, args.work, args.seconds, args.calls), indent=1))
        lines += section(size, json.loads(results.read_text()))
    args.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
