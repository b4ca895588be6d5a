"""Speed and memory of our encoders on one device. The program needs only PyTorch.

    python -m benchmarks.speed.device --device cuda > page.md
    python -m benchmarks.speed.device --device cpu --quick

The program compares Squeezeformer with Conformer, subsampling by 4 with subsampling by 8, and relative positions with
rotary positions. It prints the page of results. It stops new measurements after 8 minutes, and names the measurements
that it left out. `--quick` measures tiny encoders, to try the program.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache, partial

import torch

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.counts import gflops
from benchmarks.measuring.memory import peak_on_gpu
from benchmarks.measuring.products import peak_gflops
from benchmarks.measuring.timing import interleaved, quartiles
from benchmarks.speed.device_encoders import Network, networks, utterances
from benchmarks.speed.device_page import page
from benchmarks.speed.device_results import Results, Task
from nemo_squeezeformer.core.dispatch import only_equations

Call = Callable[[], object]


# The most important tasks come first.
TASKS = [
    Task("training", 32, 15),
    *(Task("inference", batch, seconds) for seconds in (15, 60, 5, 30) for batch in (1, 32)),
    *(Task("stream", batch) for batch in (1, 32, 128)),
]
QUICK = [Task("training", 2, 1), Task("inference", 1, 1), Task("stream", 2)]


def prepared(network: Network, task: Task, device: str, counted: bool = False) -> Call:
    """Return the call that is measured. It computes in bfloat16 by autocast. A training step has no optimizer."""
    encoder = network.build(device, streaming=task.kind == "stream", counted=counted)
    given = utterances(task.batch, task.frames(network), "cpu" if counted else device)
    inputs = [x.to(device) for x in given]
    state = encoder.init_state(task.batch) if task.kind == "stream" else None
    autocast = partial(torch.autocast, "cpu" if device == "meta" else device, torch.bfloat16, enabled=device != "meta")

    def infer() -> None:
        with torch.inference_mode(), autocast():
            encoder(*inputs, *([state] if state else []))

    def step() -> None:
        with autocast():
            loss = encoder(*inputs)[0].float().square().mean()
        loss.backward()
        encoder.zero_grad(set_to_none=True)

    if task.kind == "training" and not counted:
        encoder.train()
        return step
    return infer


@cache
def operations(network: Network, task: Task) -> float:
    """Return the GFLOPs of a call. A training step counts as three forward passes."""
    with only_equations():
        forward = gflops(prepared(network, task, "meta", counted=True))
    return (3 if task.kind == "training" else 1) * forward


def measure(tasks: list[Task], sizes: list[str], device: str, patience: float, minutes: float) -> Results:
    """Measure the tasks. After the given minutes, the remaining tasks are left out."""
    until = time.monotonic() + 60 * minutes
    peaks = peak_gflops("bf16", device, 8192 if device == "cuda" else 512)
    results = Results(device, max(peaks.values()))
    for task in tasks:
        for size in sizes:
            if time.monotonic() < until:
                measure_group(task, size, results, patience)
            else:
                results.left_out.append(f"{task.shown}, size {size}: the time was over")
    return results


def measure_group(task: Task, size: str, results: Results, patience: float) -> None:
    """Measure a task for all encoders of a size. The encoders are called in turns."""
    calls: dict[Network, Call] = {}
    for network in networks([size]):
        call = prepared(network, task, results.device)
        if fits(call):
            calls[network] = call
        else:
            results.left_out.append(f"{task.shown}, {network.shown}: not enough memory")
    took = interleaved({n.shown: call for n, call in calls.items()}, patience, 3, 25, results.device)
    for network, call in calls.items():
        results.ms.setdefault(task, {})[network] = [1e3 * q for q in quartiles(took[network.shown])]
        results.gflops.setdefault(task, {})[network] = operations(network, task)
        if results.device == "cuda":
            results.memory.setdefault(task, {})[network] = peak_on_gpu(call)
    print(f"{task.shown}, size {size}: done", file=sys.stderr, flush=True)


def fits(call: Call) -> bool:
    """Return True if the memory is sufficient for ``call``. In the first call, libraries choose their algorithms."""
    try:
        call()
    except torch.OutOfMemoryError:
        return False
    return True


def main(argv: list[str] | None = None) -> None:
    parser = command_line("benchmarks.speed.device", __doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="measure tiny encoders, to try the program")
    parser.add_argument("--sizes", nargs="+", choices=["s", "m"], default=["s", "m"])
    parser.add_argument("--patience", type=float, default=0.5, help="seconds for each call of a group")
    parser.add_argument("--minutes", type=float, default=7.0, help="no measurement starts after this time")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device; --device cpu measures the CPU")
    tasks, sizes, patience = (QUICK, ["quick"], 0.0) if args.quick else (TASKS, args.sizes, args.patience)
    print(page(measure(tasks, sizes, args.device, patience, args.minutes)), end="")


if __name__ == "__main__":
    main()
