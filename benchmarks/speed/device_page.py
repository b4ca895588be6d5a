"""The page of results of the benchmark of a device."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch

from benchmarks.measuring.machine import commit, processor
from benchmarks.measuring.tables import table, timed
from benchmarks.speed.device_encoders import RATES, SHARED, SIZES, STREAM
from benchmarks.speed.device_results import Results, Task

INTRODUCTION = """# Speed on one device

`python -m benchmarks.speed.device` makes this page. The program needs PyTorch and nothing of NeMo. All weights are
random. All encoders compute in bfloat16 by autocast.

- "Squeezeformer" is the encoder with its temporal U-Net. "Conformer" is our encoder with `block=conformer` and without
  a temporal U-Net, which is the network of NeMo's Conformer, and at 8x of NeMo's FastConformer.
- "4x" and "8x" are the factors of the subsampling. `rel_pos` and `rope` are relative and rotary positions.
- A task names the batch and the length. The shortest utterance of a batch has half of the length.
- A training step is a forward and a backward pass with dropout. It has no optimizer.
- A step of a stream encodes 480 ms of each stream of the batch.
- Time: one process calls all encoders of a size in turns. The tables show the median, and the quartiles in brackets.
- Share of the peak: the operations divided by the time and by the peak speed, which is the speed of a large product of
  matrices in bfloat16 in the same run. The program counts the operations with plain attention, and counts the padding
  of a batch. A training step counts as three forward passes.
- Memory: the peak of PyTorch's memory above the models and the inputs. It is measured only on CUDA."""


def conditions(results: Results) -> Iterator[str]:
    """Yield the lines that describe the machine, the versions and the settings."""
    cuda = results.device == "cuda"
    name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if cuda else processor()
    threads = "" if cuda else f", {torch.get_num_threads()} threads"
    yield f"- Device: {name}{threads}."
    yield f"- Versions: PyTorch {torch.__version__}, Python {platform.python_version()}."
    if head := commit():
        yield f"- Commit: {head}."
    yield f"- Peak speed of matrix products in bfloat16: {results.peak / 1e3:,.2f} TFLOP/s."
    used = {network.size for measured in results.ms.values() for network in measured}
    sizes = {f"size {size}": SIZES[size] for size in SIZES if size in used}
    for settings in (sizes, RATES, {"all encoders": SHARED}, {"streams": STREAM}):
        yield from (f"- Settings of {name}: `{given}`." for name, given in settings.items())


def task_table(results: Results, task: Task) -> str:
    """Return the table of a task, with a row for each encoder."""
    head = ["encoder", "time, ms", "share of the peak, %", "memory, MiB"]
    rows = []
    for network, ms in results.ms[task].items():
        share = 100 * results.gflops[task][network] / (ms[1] / 1e3) / results.peak
        memory = results.memory.get(task, {}).get(network)
        rows.append([network.shown, timed(ms), f"{share:.1f}", "-" if memory is None else f"{memory:,.0f}"])
    return table(head, rows)


def page(results: Results) -> str:
    """Return the page in Markdown."""
    parts = [INTRODUCTION, "## Conditions", "\n".join(conditions(results))]
    for task in results.ms:
        parts += [f"## {task.shown[0].upper()}{task.shown[1:]}", task_table(results, task)]
    if results.left_out:
        parts += ["## Left out", "\n".join(f"- {reason}" for reason in results.left_out)]
    return "\n\n".join(parts) + "\n"
