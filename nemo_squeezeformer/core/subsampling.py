"""From feature frames to encoder frames: one class a kind, one table.

Every kind maps (B, T, F) features with lengths (B,) to (B, ceil(T / factor), D) with lengths ceil(length / factor), and
lets nothing that lies past a length have any influence, even if it is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from .feed_forward import init_uniform
from .streaming import EncoderState, with_left_context


class StridingSubsampling(nn.Module):
    """log2(factor) convolutions of stride 2 over time and frequency, each followed by ReLU, then a projection."""

    KERNEL = 3

    def __init__(self, feat_in: int, d_model: int, factor: int, channels: int, causal: bool = False):
        super().__init__()
        stages = factor.bit_length() - 1
        if factor != 2**stages:
            raise ValueError(f"subsampling_factor={factor} must be a power of 2 for convolutional subsampling")
        self.feat_in = feat_in
        self.left = self.KERNEL - 1 if causal else self.KERNEL // 2
        self.right = self.KERNEL - 1 - self.left
        self.batch_chunks = 1  # more than one: so many parts of the batch go through the convolutions in turn
        self.conv = nn.ModuleList(self.convolutions(stages, channels))
        self.out = nn.Linear(channels * -(-feat_in // factor), d_model)

    def convolutions(self, stages: int, channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for stage in range(stages):
            modules += [self.strided(channels if stage else 1, channels), nn.ReLU()]
        return modules

    def strided(self, inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
        """Padded over frequency alone: what precedes in time is padding or, in a stream, the chunk before."""
        return nn.Conv2d(inputs, outputs, self.KERNEL, stride=2, padding=(0, 1), groups=groups)

    def forward(self, x: Tensor, lengths: Tensor, state: EncoderState | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, T, F), lengths: (B,) -> (B, ceil(T / factor), D), (B,)"""
        if self.batch_chunks == 1 or state is not None:
            return self.convolve(x, lengths, state)
        parts = zip(x.tensor_split(self.batch_chunks), lengths.tensor_split(self.batch_chunks))
        outputs, shorter = zip(*(self.convolve(x, lengths, None) for x, lengths in parts if len(x)))
        return torch.cat(outputs), torch.cat(shorter)

    def convolve(self, x: Tensor, lengths: Tensor, state: EncoderState | None) -> tuple[Tensor, Tensor]:
        x, stage = x[:, None], 0  # (B, 1, T, F)
        for module in self.conv:
            if _halves(module):
                x = self.with_margins(zero_padding(x, lengths, dim=2), stage, state)
                lengths, stage = (lengths + 1) // 2, stage + 1
            x = module(x)  # (B, C, T / 2, F / 2) after each that halves
        x = zero_padding(x, lengths, dim=2)
        return self.out(x.transpose(1, 2).flatten(2)), lengths

    def with_margins(self, x: Tensor, stage: int, state: EncoderState | None) -> Tensor:
        if state is None:
            return pad(x, (0, 0, self.left, self.right))
        x, state.subsampling[stage] = with_left_context(x, state.subsampling[stage], dim=2, keep=self.left)
        return x

    def init_state(self, batch: int) -> list[Tensor]:
        """Zeros in the place of the frames before the first chunk, for each strided convolution."""
        state, width = [], self.feat_in
        for module in self.conv:
            if isinstance(module, nn.Conv2d) and _halves(module):
                state.append(module.weight.new_zeros(batch, module.in_channels, self.left, width))
                width = (width + 1) // 2
        return state


class DepthwiseStridingSubsampling(StridingSubsampling):
    """The paper's: every convolution after the first is depthwise-separable (section 3.2.3)."""

    def __init__(self, feat_in: int, d_model: int, factor: int, channels: int, causal: bool = False):
        super().__init__(feat_in, d_model, factor, channels, causal)
        for module in self.conv:
            if isinstance(module, nn.Conv2d):
                init_uniform(module, fan_in=module.weight[0].numel())
        init_uniform(self.out, fan_in=d_model * feat_in / (factor.bit_length() - 1))

    def convolutions(self, stages: int, channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = [self.strided(1, channels), nn.ReLU()]
        for _ in range(stages - 1):
            modules += [self.strided(channels, channels, groups=channels), nn.Conv2d(channels, channels, 1), nn.ReLU()]
        return modules


class StackingSubsampling(nn.Module):
    """Puts ``factor`` neighbouring frames side by side and projects them; with ``norm``, normalises each before."""

    def __init__(self, feat_in: int, d_model: int, factor: int, norm: bool = False):
        super().__init__()
        self.factor = factor
        self.pre_norm = nn.LayerNorm(feat_in) if norm else None
        self.proj_out = nn.Linear(factor * feat_in, d_model)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, F), lengths: (B,) -> (B, ceil(T / factor), D), (B,)"""
        x = pad(zero_padding(x, lengths), (0, 0, 0, self.factor - 1))
        x = x[:, : x.size(1) // self.factor * self.factor]
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        x = x.reshape(x.size(0), -1, self.factor * x.size(2))  # (B, ceil(T / factor), factor * F)
        return self.proj_out(x), (lengths + self.factor - 1) // self.factor


class NoSubsampling(nn.Module):
    """A projection of every frame, for sequences that are short already."""

    def __init__(self, feat_in: int, d_model: int):
        super().__init__()
        projection = nn.Linear(feat_in, d_model)
        self.weight, self.bias = projection.weight, projection.bias  # NeMo's names: pre_encode.weight, pre_encode.bias

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, F), lengths: (B,) -> (B, T, D), (B,)"""
        return linear(zero_padding(x, lengths), self.weight, self.bias), lengths


SUBSAMPLINGS = ("dw_striding", "striding", "stacking", "stacking_norm")


def build_subsampling(
    kind: str | None, feat_in: int, d_model: int, factor: int, channels: int, causal: bool = False
) -> nn.Module:
    """The subsampling called ``kind`` in NeMo's recipes; none at all for ``kind=None`` or a ``factor`` of 1.

    Raises:
        ValueError: for a kind that is unknown or does not work, or a factor it cannot have.
    """
    if factor < 1:
        raise ValueError(f"subsampling_factor={factor} must be at least 1 (1: no subsampling)")
    if kind == "vggnet":
        raise ValueError("subsampling='vggnet' fails in NeMo's own masked convolution; use 'dw_striding' or 'striding'")
    if kind and kind not in SUBSAMPLINGS:
        raise ValueError(f"subsampling={kind!r}: expected one of {', '.join(SUBSAMPLINGS)}, or null for none")
    if not kind or factor == 1:
        return NoSubsampling(feat_in, d_model)
    if kind.startswith("stacking"):
        return StackingSubsampling(feat_in, d_model, factor, norm=kind == "stacking_norm")
    striding = DepthwiseStridingSubsampling if kind == "dw_striding" else StridingSubsampling
    return striding(feat_in, d_model, factor, channels, causal)


def zero_padding(x: Tensor, lengths: Tensor, dim: int = 1) -> Tensor:
    """``x`` with zeros past ``lengths`` (B,) along ``dim``."""
    padding = torch.arange(x.size(dim), device=x.device) >= lengths[:, None]  # (B, T)
    return x.masked_fill(padding.view(padding.shape[:1] + (1,) * (dim - 1) + padding.shape[1:] + (1,)), 0.0)


def _halves(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.stride == (2, 2)
