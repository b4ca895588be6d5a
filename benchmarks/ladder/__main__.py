"""The paper's ladder from Conformer to Squeezeformer: measurements of each rung, and a comparison with the paper.

    python -m benchmarks.ladder DIGITS

The program counts the operations of each rung at its full size and measures its time. It trains a small version of
each rung on the recordings in DIGITS. Then it writes the results, the figure and the page. Existing results are kept,
so a stopped run can be continued. Without DIGITS the program does not train. With `--quick` it uses encoders of a few
thousand parameters, to try the program.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.results import RESULTS, Results

TINY: dict[str, object] = {"d_model": 16, "n_layers": 4, "n_heads": 2, "subsampling_conv_channels": 8}


def main(arguments: list[str] | None = None) -> None:
    parser = command_line("benchmarks.ladder", __doc__)
    parser.add_argument(
        "digits", nargs="?", type=Path, help="folder with connected_train.jsonl and the other manifests"
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--peak", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=27)
    parser.add_argument("--patience", type=float, default=15, help="seconds for the calls of each rung")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "ladder")
    parser.add_argument("--work", type=Path, default=Path("build/ladder"), help="folder for the tokenizer")
    args = parser.parse_args(arguments)

    from benchmarks.ladder.measure import clock, count
    from benchmarks.ladder.page import page
    from benchmarks.ladder.plot import draw
    from benchmarks.ladder.rungs import RUNGS
    from benchmarks.ladder.train import train
    from benchmarks.measuring.figures import digest
    from benchmarks.measuring.machine import commit, conditions

    changes, seconds = (TINY, 1) if args.quick else ({}, 30)
    path = args.output / "ladder.json"
    results = Results(path, conditions("tiny" if args.quick else "sm", "cpu"), commit())
    if results.missing("operations", {}, list(RUNGS)):
        count(results, changes)
    if results.missing("time", {"seconds": seconds}, list(RUNGS)):
        clock(results, changes, seconds, args.patience)
    if args.digits:
        train(results, args.digits, args.work, changes, args)
    data = json.loads(path.read_text())
    draw(data, args.output / "ladder.png", digest(path))
    (args.output / "README.md").write_text(page(data))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
