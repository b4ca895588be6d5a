"""The plan of the measurements: encoders, lengths, batches, threads, and limits of time and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from benchmarks.measuring.encoders import missing
from benchmarks.measuring.forms import FORMS, config
from benchmarks.measuring.products import TYPES
from benchmarks.measuring.results import Results

SLOWEST_MATRICES = 8  # approximate number of query-by-key matrices that plain attention stores at the same time


@dataclass(frozen=True)
class Plan:
    """The settings of all measurements.

    Lengths and times are in seconds, memory is in GiB. ``patience`` is the time for each encoder of a group.
    """

    size: str = "s"
    device: str = "cpu"
    encoders: tuple[str, ...] = tuple(FORMS)
    precisions: tuple[str, ...] = ()  # empty: float32, and also bfloat16 in training and on a GPU
    seconds: tuple[int, ...] = (5, 15, 30, 60, 120, 300)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1, 2)
    step_batch: int = 8
    step_seconds: int = 12
    step_memory_seconds: int = 30
    counted_at: tuple[int, int, int] = (15, 30, 60)
    matrix: int = 2048
    patience: float = 2.0
    fewest: int = 5
    most: int = 20
    longest_call: float = 75.0
    memory_limit: float | None = None  # None: most of the free memory

    def names(self, training: bool) -> list[str]:
        """Return the names of the encoders in every precision. A precision other than float32 is part of the name."""
        both = training or self.device == "cuda"
        precisions = self.precisions or (tuple(TYPES) if both else ("fp32",))
        encoders = [name for name in self.encoders if not training or FORMS[name].trained]
        return [name if kind == "fp32" else f"{name}, {kind}" for kind in precisions for name in encoders]

    def free_memory(self) -> float:
        """Return the memory that a measurement may use, in GiB."""
        if self.memory_limit is not None:
            return self.memory_limit
        if self.device == "cuda":
            return 0.8 * torch.cuda.mem_get_info()[0] / 2**30
        return 0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30

    def left_out(self, seconds: float, batch: int, training: bool) -> dict[str, str]:
        """Return the encoders to leave out, each with the reason: it is missing, or it would need too much memory."""
        reasons, limit = missing(), self.free_memory()
        for name in FORMS:
            need = gib_needed(name, self.size, seconds, batch, training)
            if need > limit:
                reasons.setdefault(name, f"would need about {need:.0f} GiB of memory")
        return {name: reasons[apart(name)[0]] for name in self.names(training) if apart(name)[0] in reasons}

    def too_long(self, results: Results, key: dict[str, int]) -> dict[str, str]:
        """Return the encoders that would take too long, each with the reason.

        The estimate is based on shorter audio. It assumes that time grows with the square of the length.
        """
        found = {}
        for name in self.names(training=False):
            for seconds in sorted(self.seconds):
                shorter = results.find("inference", key | {"seconds": seconds})["measured"].get(name)
                if shorter and seconds < key["seconds"] and FORMS[apart(name)[0]].quadratic:
                    took = shorter["ms"][1] / 1e3 * (key["seconds"] / seconds) ** 2
                    found[name] = took  # the estimate from the longest measured audio replaces the others
        return {name: f"would take up to {t:.0f} s a call" for name, t in found.items() if t > self.longest_call}


QUICK = Plan(
    size="quick",
    seconds=(1, 2),
    batches=(1, 2),
    threads=(1,),
    step_batch=2,
    step_seconds=2,
    step_memory_seconds=2,
    counted_at=(1, 2, 3),
    matrix=64,
    patience=0.0,
    fewest=2,
)


def gib_needed(name: str, size: str, seconds: float, batch: int, training: bool) -> float:
    """Estimate the memory of a call, in GiB. A call is left out if the estimate exceeds the limit."""
    settings = config(name, size)
    frames = 100 * seconds / settings["subsampling_factor"]
    matrix = 4 * batch * settings["n_heads"] * frames**2 if FORMS[name].quadratic else 0
    activations = 40 * batch * frames * settings["d_model"] * 4
    kept = settings["n_layers"] if training else 1
    return kept * (SLOWEST_MATRICES * matrix + activations) / 2**30


def apart(name: str) -> tuple[str, str]:
    """Split a name into encoder and precision."""
    encoder, _, last = name.rpartition(", ")
    return (encoder, last) if last in TYPES else (name, "fp32")
