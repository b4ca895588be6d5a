"""The delay and the memory of the web page while several people speak at once.

    python -m benchmarks.serving > benchmarks/results/serving.md
    python -m benchmarks.serving MODEL.nemo --seconds 600 --session 20

The program starts `nemo-squeezeformer serve` on two cores. Simulated speakers send noise in real time, as a browser
does. A delay is the time from sending the last sample of a chunk until the text of the chunk arrives. After all others,
one more speaker asks for a place. Without a model, the program makes a streaming model of size s with random weights,
and decodes with CTC. The time of CTC does not depend on the weights.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.machine import commit, processor, versions
from benchmarks.measuring.tables import table
from benchmarks.serving.speakers import Delay, Speakers

RECIPE = "squeezeformer_hybrid_transducer_ctc_char_streaming"
CORES = 2
MIB = 2**20


def random_model(path: Path) -> None:
    """Write a streaming model of size s with random weights."""
    from hydra.utils import get_class
    from nemo.utils import logging

    from nemo_squeezeformer.training.recipes import check, compose

    cfg = compose(RECIPE, ["size=s", "model.labels=[' ',a,b,c,d,e]", "model.train_ds=null", "model.validation_ds=null"])
    check(cfg)
    logging.setLevel(logging.ERROR)
    model = get_class(cfg.model_target)(cfg=cfg.model)
    model.save_to(str(path))


def memory_of(process: int) -> float:
    """Return the resident memory of a process in MiB. It works on Linux only."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / MIB


def priority() -> str:
    """Return a note if this program, and with it the server, has priority over other programs."""
    before = os.sched_getscheduler(0) != os.SCHED_OTHER or os.getpriority(os.PRIO_PROCESS, 0) < 0
    return " The speakers and the server had a higher priority than other programs." if before else ""


def started(model: Path, args: Any) -> tuple[subprocess.Popen[str], str]:
    """Start the command on two cores, and return its process and the address of the page."""
    command = [sys.executable, "-m", "nemo_squeezeformer", "serve", str(model), "--port", "0", "--device", "cpu"]
    command += ["--latency", str(args.latency), "--speakers", str(args.speakers)]
    command += [] if args.model else ["--decoder", "ctc"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[:CORES])
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"the page is open at (\S+)", line):
            return process, found[1]
    raise SystemExit("".join(said))


async def measured(address: str, process: int, args: Any) -> tuple[list[Delay], list[float], str]:
    """Return the delays of all chunks, the memory in each part of the time, and the message to one more speaker."""
    speakers = Speakers(address, args.rate, args.session)
    memory: list[float] = []
    tasks = [asyncio.create_task(speakers.speak(number, args.seconds)) for number in range(args.speakers)]
    await asyncio.sleep(1.0)
    message = await speakers.ask_for_a_place()
    for _ in range(args.parts):
        await asyncio.sleep((args.seconds - 1.0) / args.parts)
        memory.append(memory_of(process))
    await asyncio.gather(*tasks)
    return speakers.delays, memory, message


def page(args: Any, name: str, load: float, delays: list[Delay], memory: list[float], message: str) -> str:
    """Return the page of results."""
    half = max(delay.at for delay in delays) / 2

    def row(what: str, some: list[Delay]) -> list[str]:
        figures = [1000 * np.quantile([delay.seconds for delay in some], share) for share in (0.5, 0.99, 1.0)]
        return [what, str(len(some)), *(f"{figure:.0f}" for figure in figures)]

    parts = [row("the whole time", delays), row("the first half", [delay for delay in delays if delay.at < half])]
    parts.append(row("the second half", [delay for delay in delays if delay.at >= half]))
    return "\n".join(
        [
            "`python -m benchmarks.serving` makes this page.\n",
            f"{args.speakers} simulated speakers speak at once for {args.seconds:.0f} s into the page of",
            f"`nemo-squeezeformer serve --latency {args.latency}`, which runs on {CORES} cores. The table shows the",
            "time from sending the last sample of a chunk until the text of the chunk arrives.",
            f"{processor()}, {versions()}, commit {commit()}, {name}.",
            f"Before the measurement, the load average of the machine was {load:.1f}.{priority()}\n",
            table(["chunks of", "number", "median, ms", "99th percentile, ms", "maximum, ms"], parts),
            f"\nOne more speaker receives: {message}.\n",
            f"Memory of the server in equal parts of the time, in MiB: {', '.join(f'{mib:.0f}' for mib in memory)}.",
        ]
    )


def main() -> None:
    parser = command_line("benchmarks.serving", __doc__)
    parser.add_argument("model", type=Path, nargs="?", help="a .nemo file that streams (default: random weights)")
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--latency", type=int, default=480, help="milliseconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for which the speakers speak")
    parser.add_argument("--session", type=float, default=0.0, help="seconds until a speaker stops and starts again")
    parser.add_argument("--rate", type=int, default=48_000, help="sample rate of the microphones")
    parser.add_argument("--parts", type=int, default=10, help="number of values of the memory")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder, "random.nemo")
        if not args.model:
            random_model(model)
        process, address = started(model, args)
        try:
            time.sleep(1)
            found = asyncio.run(measured(address, process.pid, args))
        finally:
            process.terminate()
            process.wait()
    print(page(args, model.name if args.model else "CTC with a model of size s and random weights", load, *found))


if __name__ == "__main__":
    main()
