"""The speed of encoders in torch and in ONNX Runtime, in float32 and in int8.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.onnx.speed > benchmarks/results/onnx_speed.md

The program compares the Squeezeformer of this project with NeMo 2.7.3's Squeezeformer. Later releases of NeMo have no
Squeezeformer, and the program then leaves it out. All encoders have equal weights. The program calls the encoders
alternately. The encoder of this project is exported in the same way as by `nemo-squeezeformer export --offline`. NeMo's
Squeezeformer is exported by NeMo's own export.
`python -m benchmarks.onnx.accuracy` measures the accuracy of int8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.encoders import Encoders, missing, utterances
from benchmarks.measuring.machine import commit, conditions
from benchmarks.measuring.products import peak_gflops
from benchmarks.measuring.tables import head, line
from benchmarks.measuring.timing import interleaved, quartiles
from benchmarks.onnx.errors import relative

IN_TREE = "in-tree"
NAMES = {
    "in-tree": "NeMo 2.7.3's Squeezeformer, PyTorch",
    "in-tree, ONNX": "NeMo 2.7.3's Squeezeformer, ONNX Runtime, float32",
    "ours": "our Squeezeformer, PyTorch",
    "ours, optimised": "our Squeezeformer, PyTorch, `optimize_for_inference()`",
    "float32": "our Squeezeformer, ONNX Runtime, float32",
    "int8": "our Squeezeformer, ONNX Runtime, int8",
}


def export(encoder: nn.Module, path: Path, int8: bool = False) -> Path:
    """Export an encoder of this project to ``path`` in the same way as the command, and return ``path``."""
    from nemo_squeezeformer.deployment.onnx.graphs import for_graphs, unfuse_norms
    from nemo_squeezeformer.deployment.onnx.quantization import quantize

    for_graphs(encoder, streaming=False)
    write(encoder, path)
    unfuse_norms(path)
    if int8:
        quantize(path)
    return path


def write(encoder: nn.Module, path: Path) -> None:
    """Write the graph of an encoder to ``path`` with NeMo's own export."""
    export_by_nemo: Any = encoder.export
    export_by_nemo(str(path))


def graphs(encoders: Encoders, folder: Path) -> dict[str, Path]:
    """Export all graphs that ONNX Runtime runs, and return their files by name."""
    found = {}
    if IN_TREE not in missing():
        found["in-tree, ONNX"] = folder / "in-tree.onnx"
        write(encoders.build(IN_TREE, training=False), found["in-tree, ONNX"])
    for form in ("float32", "int8"):
        found[form] = export(encoders.build("ours", training=False), folder / f"{form}.onnx", form == "int8")
    return found


def session(path: Path, threads: int) -> Any:
    """Return a session for the graph at ``path`` with this number of threads.

    The threads do not spin after a call, because they would slow down the other encoders.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(graph: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.from_numpy(graph.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@torch.inference_mode()
def infer(encoder: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return encoder(**inputs)[0]


def callables(
    encoders: Encoders, files: dict[str, Path], threads: int
) -> dict[str, Callable[[dict[str, Any]], torch.Tensor]]:
    """Return the functions to measure. Each function returns the encodings for a dict of features and lengths."""
    torch.set_num_threads(threads)
    eager = [name for name in (IN_TREE, "ours", "ours, optimised") if name not in missing()]
    calls = {name: partial(infer, encoders.build(name, training=False)) for name in eager}
    calls |= {name: partial(run, session(path, threads)) for name, path in files.items()}
    return {name: calls[name] for name in NAMES if name in calls}


def table(encoders: Encoders, files: dict[str, Path], threads: int, lengths: Sequence[int], fewest: int) -> list[str]:
    """Return the section for a number of threads: milliseconds, and the speed relative to the first encoder."""
    calls = callables(encoders, files, threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: dict[int, dict[str, list[float]]] = {}
    for seconds in lengths:
        inputs = utterances(seconds, 1)
        prepared = {name: partial(call, inputs) for name, call in calls.items()}
        for name in prepared:
            prepared[name]()  # warm-up
        took = interleaved(prepared, patience=10.0, fewest=fewest, most=25, clock=clock)
        times[seconds] = {name: quartiles([1e3 * value for value in values]) for name, values in took.items()}
    lines = [
        f"### {threads} thread{'s' * (threads > 1)}\n",
        head(["encoder", *(f"{seconds} s" for seconds in lengths)]),
    ]
    first = next(iter(calls))
    for name in calls:
        cells = []
        for of in times.values():
            low, median, high = of[name]
            cells.append(f"{median:.0f} ms ({low:.0f}-{high:.0f}), {of[first][1] / median:.2f}x")
        lines.append(line([NAMES[name], *cells]))
    return [*lines, ""]


def errors(encoders: Encoders, files: dict[str, Path], seconds: int) -> list[str]:
    """Return a table with the errors of the encodings, relative to this project's encoder in torch."""
    calls, inputs = callables(encoders, files, 1), utterances(seconds, 1)
    expected = calls["ours"](inputs)
    lines = head(["encoder", "largest relative error", "relative RMS error", "size of the file, MB"]).splitlines()
    for name, call in calls.items():
        if name != "ours":
            largest, rms = relative([call(inputs)], [expected])
            megabytes = f"{files[name].stat().st_size / 1e6:.1f}" if name in files else ""
            lines.append(line([NAMES[name], f"{largest:.1e}", f"{rms:.1e}", megabytes]))
    return lines


def main() -> None:
    parser = command_line("benchmarks.onnx.speed", __doc__)
    parser.add_argument("--size", default="s", choices=("s", "quick"))
    parser.add_argument("--seconds", nargs="+", type=int, default=[5, 15, 60])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--calls", type=int, default=5, help="smallest number of calls of each encoder")
    args = parser.parse_args()

    import onnxruntime

    found = conditions(args.size, "cpu")
    versions = f"{found['versions']}, ONNX Runtime {onnxruntime.__version__}"
    print("# Encoders in ONNX Runtime\n\n`python -m benchmarks.onnx.speed` makes this page.\n")
    print(
        f"{found['machine']}. {versions}. Allocator: {found['allocator']}. {found['size']}, batch 1, commit {commit()}."
    )
    torch.set_num_threads(1)
    peak = ", ".join(f"{name} {value:.0f}" for name, value in peak_gflops().items())
    print(f"The speed of large matrix products in float32 on one thread, in GFLOP/s, is: {peak}.\n")
    print(
        "A cell shows the median time of a call, with the quartiles in brackets. The factor after the comma is the\n"
        "speed relative to the first row. The columns are lengths of the audio. The program calls the encoders\n"
        "alternately. With one thread, the time is processor time. With more threads, the time is wall-clock time.\n"
    )
    with TemporaryDirectory() as folder:
        encoders = Encoders(args.size, "cpu")
        files = graphs(encoders, Path(folder))
        for threads in args.threads:
            print("\n".join(table(encoders, files, threads, args.seconds, args.calls)), flush=True)
        print("### Errors of the encodings\n")
        print("The errors are relative to the encodings of our Squeezeformer in PyTorch.\n")
        print("\n".join(errors(encoders, files, args.seconds[0])))


if __name__ == "__main__":
    main()
