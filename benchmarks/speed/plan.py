"""What is measured: encoders, lengths, batches, threads, and how long each may take."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from benchmarks.measuring.encoders import missing
from benchmarks.measuring.forms import FORMS, config
from benchmarks.measuring.products import TYPES
from benchmarks.measuring.results import Results

SLOWEST_MATRICES = 8  # how many matrices of all queries by all keys the plain attentions hold at once, about


@dataclass(frozen=True)
class Plan:
    """Lengths and times are in seconds, memory in GiB; ``patience`` is for each encoder of a group."""

    size: str = "s"
    device: str = "cpu"
    encoders: tuple[str, ...] = tuple(FORMS)
    precisions: tuple[str, ...] = ()  # none: float32, and bfloat16 besides in training and on a GPU
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
    memory_limit: float | None = None  # None: most of what is free

    def names(self, training: bool) -> list[str]:
        """The encoders in every precision; a name is followed by its precision, unless that is float32."""
        both = training or self.device == "cuda"
        precisions = self.precisions or (tuple(TYPES) if both else ("fp32",))
        encoders = [name for name in self.encoders if not training or FORMS[name].trained]
        return [name if kind == "fp32" else f"{name}, {kind}" for kind in precisions for name in encoders]

    def free_memory(self) -> float:
        """GiB that a measurement may take."""
        if self.memory_limit is not None:
            return self.memory_limit
        if self.device == "cuda":
            return 0.8 * torch.cuda.mem_get_info()[0] / 2**30
        return 0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30

    def left_out(self, seconds: float, batch: int, training: bool) -> dict[str, str]:
        """Who is left out of a measurement, and why: who is not here, and who would need too much memory."""
        reasons, limit = missing(), self.free_memory()
        for name in FORMS:
            need = gib_needed(name, self.size, seconds, batch, training)
            if need > limit:
                reasons.setdefault(name, f"would need about {need:.0f} GiB of memory")
        return {name: reasons[apart(name)[0]] for name in self.names(training) if apart(name)[0] in reasons}

    def too_long(self, results: Results, key: dict[str, int]) -> dict[str, str]:
        """Who would take too long, going by shorter audio: the time grows with the square of the length at most."""
        found = {}
        for name in self.names(training=False):
            for seconds in sorted(self.seconds):
                shorter = results.find("inference", key | {"seconds": seconds})["measured"].get(name)
                if shorter and seconds < key["seconds"] and FORMS[apart(name)[0]].quadratic:
                    took = shorter["ms"][1] / 1e3 * (key["seconds"] / seconds) ** 2
                    found[name] = took  # the longest of the shorter ones has the last word
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
    """About how much memory it takes, with which a run is refused before it brings the machine down."""
    settings = config(name, size)
    frames = 100 * seconds / settings["subsampling_factor"]
    matrix = 4 * batch * settings["n_heads"] * frames**2 if FORMS[name].quadratic else 0
    activations = 40 * batch * frames * settings["d_model"] * 4
    kept = settings["n_layers"] if training else 1
    return kept * (SLOWEST_MATRICES * matrix + activations) / 2**30


def apart(name: str) -> tuple[str, str]:
    """The encoder and the precision that a name stands for."""
    encoder, _, last = name.rpartition(", ")
    return (encoder, last) if last in TYPES else (name, "fp32")
