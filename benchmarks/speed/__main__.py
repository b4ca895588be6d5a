"""Speed and memory of encoders with nearly equal numbers of parameters.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.speed all
    python -m benchmarks.speed inference --seconds 5 15 --threads 1
    python -m benchmarks.speed table > benchmarks/results/speed/README.md

The program compares variants of this project's encoder, NeMo 2.7.3's Squeezeformer, and NeMo's Conformers. Run it with
NeMo 2.7.3, which has all these encoders. With other releases of NeMo, the program leaves out missing encoders and
names them.

Each device and each release of NeMo has its own file of results. Existing measurements are not repeated. A stopped run
can therefore be continued, and the parts can run one at a time. With the settings above, glibc does not return freed
memory to the system. This is the same for all encoders.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.results import RESULTS, Results
from benchmarks.speed import measure as measurements
from benchmarks.speed.operations import operations
from benchmarks.speed.page import page
from benchmarks.speed.plan import QUICK, Plan
from benchmarks.speed.plots import draw
from benchmarks.speed.readme import quoted

OUTPUT = RESULTS / "speed"
PARTS = ("memory", "inference", "training", "operations")  # memory is first: it forks, which must precede threads


def measure(args: argparse.Namespace) -> None:
    import nemo
    import torch

    from benchmarks.measuring.machine import commit, conditions

    devices = args.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    given: dict[str, Any] = {field.name: getattr(args, field.name, None) for field in fields(Plan)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None}
    for device in devices:
        plan = replace(QUICK if args.quick else Plan(), device=device)
        if device == "cuda":
            plan = replace(plan, threads=plan.threads[:1])
        plan = replace(plan, **given)
        path = args.output / f"{device}-nemo-{nemo.__version__}.json"
        try:
            results = Results(path, conditions(plan.size, device), commit(), args.again)
        except ValueError as error:
            sys.exit(str(error))
        for part in PARTS if args.command == "all" else [args.command]:
            run = operations if part == "operations" else getattr(measurements, part)
            run(plan, results)
    if args.command == "all":
        draw(args.output)
        (args.output / "README.md").write_text(page(args.output))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = command_line("benchmarks.speed", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("all", *PARTS):
        one = commands.add_parser(
            name, help="measure everything and write the page" if name == "all" else f"measure {name}"
        )
        one.add_argument("--quick", action="store_true", help="use tiny encoders, to try the program")
        one.add_argument("--again", action="store_true", help="repeat existing measurements")
        one.add_argument("--output", type=Path, default=OUTPUT)
        one.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], help="default: all available devices")
        one.add_argument("--encoders", nargs="+", metavar="NAME")
        one.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"])
        one.add_argument("--seconds", type=int, nargs="+", help="lengths of the audio")
        one.add_argument("--batches", type=int, nargs="+")
        one.add_argument("--threads", type=int, nargs="+")
        one.add_argument("--patience", type=float, help="seconds for each encoder of a group")
        one.add_argument("--longest-call", type=float, help="seconds; slower encoders are left out")
        one.add_argument("--memory-limit", type=float, help="GiB; encoders that need more memory are left out")
    texts = {"table": "print the page", "plots": "draw the figures", "readme": "print the table of docs/benchmarks.md"}
    for name, text in texts.items():
        commands.add_parser(name, help=text).add_argument("results", type=Path, nargs="?", default=OUTPUT)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if args.command == "table":
        print(page(args.results), end="")
    elif args.command == "readme":
        print(quoted(args.results), end="")
    elif args.command == "plots":
        draw(args.results)
    else:
        measure(args)


if __name__ == "__main__":
    main()
