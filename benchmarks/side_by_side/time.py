"""The time of training steps of the encoders, their parameters and their operations."""

from __future__ import annotations

import argparse
import json
from functools import partial

import torch
from torch import nn

from benchmarks.measuring.encoders import built, counted
from benchmarks.measuring.machine import processor, versions
from benchmarks.measuring.small_encoders import SMALL_ENCODERS
from benchmarks.measuring.timing import alternately, quartiles


def measure(args: argparse.Namespace) -> None:
    """Measure training steps of the encoders in turns, on one thread, and write the results.

    A step is a forward and a backward pass over 16 utterances of 2 to 4 s.
    """
    import lightning

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoders = {name: built(config) for name, config in SMALL_ENCODERS.items()}
    page = {name: counted(config) for name, config in SMALL_ENCODERS.items()}
    features, lengths = torch.randn(16, 80, 400), torch.randint(200, 401, (16,))

    def step(encoder: nn.Module) -> None:
        encoder(audio_signal=features, length=lengths)[0].square().mean().backward()

    steps = {name: partial(step, each.train()) for name, each in encoders.items()}
    for name, seconds in alternately(steps, args.repeats, warm_up=2).items():
        low, middle, high = (round(1e3 * value) for value in quartiles(seconds))
        page[name] |= {"step_ms": middle, "step_ms_quartiles": [low, high]}
    page["conditions"] = {
        "machine": f"{processor()}, one thread",
        "versions": f"{versions()}, lightning {lightning.__version__}",
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "time.json").write_text(json.dumps(page, indent=2) + "\n")
