"""The relative error of the gradients of relative attention in low precision, compared with float64."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.gpu_attention.forms import FusedArithmetic, PlainOnGPU
from nemo_squeezeformer.core.attention import RelPositionAttention
from nemo_squeezeformer.core.attention.kernel import PlainKernel
from nemo_squeezeformer.core.attention.positions import relative_encodings
from nemo_squeezeformer.core.frames.context import Context
from nemo_squeezeformer.core.frames.masks import Frames
from nemo_squeezeformer.core.kernels.recomputed_batch import RecomputedBatch

FORMS: dict[str, PlainKernel] = {
    "plain": PlainOnGPU(),
    "recomputed, whole batch": RecomputedBatch(),
    "fused kernel, low precision": FusedArithmetic(in_float32=False),
    "`sdpa`: fused kernel, float32": FusedArithmetic(),
}
POSITIONS = ("linear_pos.weight", "pos_bias_v")
CONTENT = ("linear_q.weight", "linear_k.weight", "linear_v.weight", "pos_bias_u")


@dataclass(frozen=True)
class Case:
    """A layer of width 196 with 4 heads, and 2 utterances. A quarter of the second utterance is padding."""

    t: int  # number of frames
    scores: float  # standard deviation of the scores, roughly
    common: float  # the same part of the values of all keys, in standard deviations of the values
    precision: torch.dtype = torch.bfloat16
    weights: bool = False  # True if the weights have the low precision; False means autocast

    def name(self) -> list[str]:
        how = f"{str(self.precision).removeprefix('torch.')}, {'weights' if self.weights else 'autocast'}"
        return [how, str(self.t), f"{self.scores:g}", f"{self.common:g}"]


CASES = [
    *(Case(t, scores, common) for t in (100, 400, 1000) for scores in (1.0, 10.0) for common in (0.0, 3.0, 30.0)),
    *(Case(t, 1.0, 1.0) for t in (100, 400, 1000)),
    *(Case(400, 1.0, common, precision=torch.float16) for common in (0.0, 30.0)),
    *(Case(400, 1.0, common, weights=True) for common in (0.0, 30.0)),
]


def layer(case: Case, seed: int) -> RelPositionAttention:
    """Return a layer whose weights are exact in bfloat16."""
    torch.manual_seed(seed)
    made = RelPositionAttention(196, 4)
    for name, weight in made.named_parameters():
        nn.init.normal_(weight, std=1.0 / math.sqrt(196) if name.endswith("weight") else 0.5)
    for name in ("linear_q.weight", "linear_k.weight", "linear_pos.weight", "pos_bias_u", "pos_bias_v"):
        made.get_parameter(name).data.mul_(math.sqrt(case.scores))
    made.linear_v.bias.data.add_(case.common)
    for weight in made.parameters():
        weight.data = rounded(weight.data)
    return made


def gradients(made: RelPositionAttention, kernel: PlainKernel, case: Case, seed: int, exact: bool) -> dict[str, Tensor]:
    """Return the gradients of a random projection of the attended values, in float64."""
    b, t, d = 2, case.t, 196
    generator = torch.Generator().manual_seed(seed)
    x = rounded(torch.randn(b, t, d, generator=generator))
    upstream = rounded(torch.randn(b, 4, t, d // 4, generator=generator) / t)
    encodings = rounded(relative_encodings(t - 1, 1 - t, x))
    frames = Frames.of(torch.tensor([t, 3 * t // 4]), t, Context())
    made = copy.deepcopy(made)
    made.kernel = kernel
    dtype = torch.float64 if exact else case.precision if case.weights else torch.float32
    made, x, encodings = made.to(dtype), x.to(dtype), encodings.to(dtype)
    with torch.autocast("cpu", case.precision, enabled=not exact and not case.weights):
        y = made.attended(x, x, frames, encodings)
    y.backward(upstream.to(y.dtype))
    found = {name: made.get_parameter(name).grad for name in (*POSITIONS, *CONTENT)}
    return {name: grad.double() for name, grad in found.items() if grad is not None}


def errors(case: Case, seeds: int) -> dict[str, tuple[float, float]]:
    """Return the mean relative errors of the gradients of positions and of the other gradients, by form."""
    lost: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FORMS}
    for seed in range(seeds):
        made = layer(case, seed)
        exact = gradients(made, PlainKernel(), case, seed, exact=True)
        for name, kernel in FORMS.items():
            found = gradients(made, kernel, case, seed, exact=False)
            for of, grad in exact.items():
                error = float((found[of] - grad).norm() / grad.norm())
                lost[name][of not in POSITIONS].append(error)
    return {name: (sum(a) / len(a), sum(b) / len(b)) for name, (a, b) in lost.items()}


def rounded(x: Tensor) -> Tensor:
    """Return ``x`` in float32, with values that are exact in bfloat16."""
    return x.bfloat16().float()
