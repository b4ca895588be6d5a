"""The peak memory and the processor time of the command `transcribe` for long recordings.

    python -m benchmarks.long_audio.memory MODEL.nemo --manifests MANIFEST... --minutes 10 60 120

The program joins the utterances of NeMo manifests in the way of `python -m benchmarks.long_audio`. For each length and
each way, it runs the whole command in a new process. The peak is the largest resident memory that the system reports
for the process. The program works on Linux only.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.long_audio.measure import write
from benchmarks.long_audio.recordings import joined, utterances
from benchmarks.measuring import machine
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

WAYS = {
    "cut at pauses, at most 20 s": ["--cut", "pauses"],
    "one call, window [128, 128]": ["--cut", "none", "--att-context-size", "[128, 128]"],
}


def used(model: Path, recording: Path, options: Sequence[str]) -> tuple[float, float]:
    """Return the peak memory in GiB and the processor time in seconds of the command.

    Raises:
        SystemExit: The command failed.
    """
    command = [sys.executable, "-m", "nemo_squeezeformer", "transcribe", str(model), str(recording), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)  # the usage of this process alone
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.long_audio.memory", __doc__)
    parser.add_argument("model", type=Path, help=".nemo file with a Squeezeformer of this project")
    parser.add_argument("--manifests", type=Path, nargs="+", required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 60.0, 120.0])
    args = parser.parse_args(argv)
    spoken, rng = utterances(args.manifests), random.Random(0)
    print(
        f"Conditions: {machine.processor()}, one thread, {machine.versions()}, commit {machine.commit()}. Each "
        "number is measured once, and is the peak memory or the processor time of the whole command.\n"
    )
    columns = [f"{minutes:g} min: {column}" for minutes in args.minutes for column in ("peak memory, GiB", "time, s")]
    rows = {name: [name] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            recording = Path(folder) / "long.wav"
            write(recording, joined(spoken, minutes, rng))
            for name, options in WAYS.items():
                peak, seconds = used(args.model, recording, options)
                rows[name] += [f"{peak:.2f}", f"{seconds:.1f}"]
    print("\n".join([head(["", *columns]), *map(line, rows.values())]))


if __name__ == "__main__":
    main()
