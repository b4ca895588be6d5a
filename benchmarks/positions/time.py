"""Time and memory of the encoder of size s with relative and with rotary positions, on one thread."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any

import torch
from torch import nn

from benchmarks.measuring.counts import gflops, parameters
from benchmarks.measuring.encoders import built, missing, utterances
from benchmarks.measuring.forms import config
from benchmarks.measuring.machine import commit, processor, versions
from benchmarks.measuring.memory import peak_in_a_process
from benchmarks.measuring.timing import in_milliseconds, interleaved
from benchmarks.positions.encoders import POSITIONS
from nemo_squeezeformer import core

IN_TREE = "NeMo 2.7.3"
SECONDS = (5, 15, 30, 60)
CHUNK, LEFT = 12, 72  # encoder frames of a streaming step, 480 ms, and of its left context
LONG = 300  # seconds of the recording whose peak memory is measured


def build(name: str, size: str, **settings: Any) -> Any:
    """Return the encoder ``name``, which is a name of ``POSITIONS``, or NeMo 2.7.3's encoder."""
    torch.manual_seed(0)
    if name == IN_TREE:
        return built(config("in-tree", size) | settings)
    return built(config("ours", size) | POSITIONS[name] | settings)


def inference(encoder: nn.Module, seconds: float) -> Callable[[], None]:
    """Return a call on a single utterance."""
    inputs = utterances(seconds, 1)

    def call() -> None:
        with torch.inference_mode():
            encoder(**inputs)

    return call


def training(encoder: nn.Module, seconds: float, batch: int) -> Callable[[], None]:
    """Return a training step without an optimizer on a batch whose shortest utterance has half of ``seconds``."""
    inputs = utterances(seconds, batch)

    def call() -> None:
        encoder(**inputs)[0].square().mean().backward()
        encoder.zero_grad(set_to_none=True)

    return call


def streaming(encoder: Any) -> Callable[[], None]:
    """Return a step of a stream of features whose left context is full."""
    frames = CHUNK * encoder.subsampling_factor
    features, state = torch.randn(1, encoder.feat_in, frames), encoder.init_state(1)

    def step() -> None:
        with torch.inference_mode():
            core.SqueezeformerEncoder.forward(encoder, features, None, state)  # without NeMo's caches

    for _ in range(LEFT // CHUNK + 1):
        step()
    return step


def alternately_timed(calls: dict[str, Callable[[], None]], patience: float) -> dict[str, Any]:
    """Call each of ``calls`` once, and then measure all alternately."""
    for call in calls.values():
        call()
    return in_milliseconds(interleaved(calls, patience, clock=thread_time))


def measure(args: argparse.Namespace) -> None:
    """Measure all parts and write the file of results of this NeMo version."""
    import nemo

    torch.set_num_threads(1)
    size, patience = ("quick", 0.0) if args.quick else ("s", 6.0)
    seconds, long, batch, length = ((1, 2), 3, 2, 2) if args.quick else (SECONDS, LONG, 8, 12)
    names = [*([] if missing() else [IN_TREE]), *POSITIONS]
    plain = {name: build(name, size).eval() for name in names}
    optimized = {f"{name}, optimized": build(name, size).optimize_for_inference() for name in POSITIONS}
    page: dict[str, Any] = {
        "conditions": f"{processor()}, one thread; {versions()}; size {size}; commit {commit()}",
        "memory": {
            str(long): {
                name: round(peak_in_a_process(partial(inference, encoder, long), 1)) for name, encoder in plain.items()
            }
        },
        "parameters": {name: parameters(encoder) for name, encoder in plain.items()},
        "gflops": {
            name: round(gflops(inference(build(name, size, attention="plain").eval(), 30)), 2) for name in POSITIONS
        },
        "inference": {},
    }
    for length_of_one in seconds:
        calls = {name: inference(encoder, length_of_one) for name, encoder in (plain | optimized).items()}
        page["inference"][str(length_of_one)] = alternately_timed(calls, patience)
    page["training"] = {
        str(rate): alternately_timed(
            {name: training(build(name, size, dropout_att=rate).train(), length, batch) for name in names}, patience
        )
        for rate in (0.1, 0.0)
    }
    stream = {"streaming": True, "att_context_size": [LEFT, CHUNK - 1]}
    steps = {name: build(name, size, **stream).eval() for name in POSITIONS}
    steps |= {f"{name}, optimized": build(name, size, **stream).optimize_for_inference() for name in POSITIONS}
    page["streaming"] = alternately_timed({name: streaming(encoder) for name, encoder in steps.items()}, patience)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / f"time-nemo-{nemo.__version__}.json"
    file.write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")
    print(file)
