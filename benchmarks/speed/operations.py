"""Parameters, operations, differences between outputs, and the peak speed of the machine."""

from __future__ import annotations

import math
from functools import partial

import torch

from benchmarks.measuring.counts import gflops, parameters
from benchmarks.measuring.encoders import Encoders, missing, utterances
from benchmarks.measuring.forms import FORMS
from benchmarks.measuring.products import peak_gflops
from benchmarks.measuring.results import Results
from benchmarks.speed.plan import Plan


@torch.inference_mode()
def counts(encoder: torch.nn.Module, lengths: tuple[int, ...], device: str) -> list[float]:
    """Return the operations for one utterance of each length, in 10^9."""
    inputs = (utterances(seconds, 1, device) for seconds in lengths)
    return [round(gflops(partial(encoder, **each)), 5) for each in inputs]


def gflops_at(seconds: float, lengths: list[int], counted: list[float]) -> float:
    """Return the operations for another length by polynomial interpolation.

    Operations grow linearly with the length, and the operations of attention grow with its square.
    """
    terms = []
    for x, count in zip(lengths, counted):
        factors = [(seconds - other) / (x - other) for other in lengths if other != x]
        terms.append(count * math.prod(factors))
    return sum(terms)


@torch.inference_mode()
def output(encoders: Encoders, name: str, seconds: int) -> torch.Tensor:
    """Return the output of an encoder for three utterances, with zeros in the padding."""
    x, lengths = encoders.build(name)(**utterances(seconds, 3, encoders.device))
    return x * (torch.arange(x.size(2), device=x.device) < lengths[:, None])[:, None]


def operations(plan: Plan, results: Results) -> None:
    precisions = ["fp32", "bf16"] if plan.device == "cuda" else ["fp32"]
    for threads in plan.threads:
        torch.set_num_threads(threads)
        if results.missing("peak", {"threads": threads}, precisions):
            peaks = {precision: peak_gflops(precision, plan.device, plan.matrix) for precision in precisions}
            results.add("peak", {"threads": threads}, peaks, {})
    encoders, absent, key = Encoders(plan.size, plan.device), missing(), {"lengths": list(plan.counted_at)}
    references: dict[str, torch.Tensor] = {}
    for name in results.missing("operations", key, [name for name in plan.encoders if name not in absent]):
        plain, network = encoders.build(name, counted=True), FORMS[name].network
        row = {
            "parameters": parameters(plain),
            "gflops": counts(plain, plan.counted_at, plan.device),
        }
        if FORMS[name].exact:
            x = output(encoders, name, plan.counted_at[0])
            row["difference"] = float((x - references.setdefault(network, x)).abs().max())
        results.add("operations", key, results.find("operations", key)["measured"] | {name: row}, absent)
