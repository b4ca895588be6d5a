"""The subsampling: from feature frames to encoder frames, with a class for each kind.

Every class maps features (B, T, F) with lengths (B,) to (B, ceil(T / factor), D) with lengths ceil(length / factor).
With the zero paddings ``CAUSAL`` and ``ENDLESS`` (``Margins``), the output can have one more frame. Frames after the
length of an utterance have no influence, even NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from .dispatch import dispatched
from .feed_forward import init_uniform
from .frames.entrance import checked_lengths, refuse_empty
from .frames.margins import CENTRED, Margins
from .frames.state import EncoderState, with_left_context


class Subsampling(nn.Module):
    """The base class of all kinds of subsampling, with the methods that NeMo's streaming needs.

    The default values are for a subsampling in which no two encoder frames see the same feature frame.
    """

    batch_parts = 1  # number of parts of a batch that pass through the convolutions one after another

    def forward(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None = None, absent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Check the batch and subsample the features: (B, T, F) -> (B, ceil(T / factor), D).

        Args:
            x: Features (B, T, F).
            lengths: Number of valid feature frames (B,).
            state: Streaming state, if the features are a chunk of a stream.
            absent: Number of leading feature frames (B,) before the start of the stream, a multiple of the factor.
                ``lengths`` count these frames. The subsampling treats them as zero padding.

        Returns:
            The encoder frames and the number of valid encoder frames (B,).

        Raises:
            ValueError: The batch is empty, or a length does not fit the batch.
        """
        refuse_empty(x, dim=1)
        return self.subsampled(x, checked_lengths(x, lengths, dim=1), state, absent)

    def subsampled(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None, absent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Subsample a checked batch. The arguments and the results are the arguments and the results of ``forward``."""
        raise NotImplementedError

    def split_batch(self, factor: int) -> None:
        """Set the number of parts of a batch that pass through the convolutions one after another.

        Args:
            factor: ``subsampling_conv_chunking_factor`` of the encoder; -1 and 1 mean the whole batch at once.

        Raises:
            ValueError: ``factor`` is not -1, 1 or a power of 2.
        """
        if factor != -1 and (factor < 1 or factor & (factor - 1)):
            raise ValueError(f"subsampling_conv_chunking_factor={factor} must be -1, 1 or a power of 2")
        self.batch_parts = max(factor, 1)

    def get_sampling_frames(self) -> int | list[int]:
        """Return the number of feature frames for the first encoder frame of a stream and for each later encoder frame.

        An int means that the two numbers are equal.
        """
        return 1

    def get_streaming_cache_size(self) -> int | list[int]:
        """Return the number of feature frames to prepend to the first chunk of a stream and to each later chunk.

        An int means that the two numbers are equal.
        """
        return 0

    def init_state(self, batch: int) -> list[Tensor]:
        """Return the streaming state of ``batch`` new streams. The default is an empty list."""
        return []


class StridingSubsampling(Subsampling):
    """The subsampling of Conformer: log2(factor) convolutions with stride 2, each followed by ReLU, and a projection.

    Each convolution halves the frame rate and the number of feature channels.
    """

    KERNEL = 3

    def __init__(self, feat_in: int, d_model: int, factor: int, channels: int, margins: Margins | None = None):
        super().__init__()
        stages = factor.bit_length() - 1
        if factor != 2**stages:
            raise ValueError(f"subsampling_factor={factor} must be a power of 2 for convolutional subsampling")
        self.feat_in, self.channels, self.factor = feat_in, channels, factor
        self.margins = margins or CENTRED
        self.conv = nn.ModuleList(self.convolutions(stages, channels))
        width = self.margins.widths(feat_in, stages)[-1]
        if width < 1:
            raise ValueError(
                f"feat_in={feat_in} with subsampling_factor={factor}: the convolutions leave no feature channel; set "
                f"feat_in to {factor} or more"
            )
        self.out = nn.Linear(channels * width, d_model)

    @property
    def left(self) -> int:
        """Return the number of input frames before frame 2t that output frame t of a strided convolution sees."""
        return self.margins.time[0]

    @property
    def beside(self) -> tuple[int, int]:
        """Return the zero padding (before, after) of the feature channels that ``forward`` adds.

        The result is (0, 0) if the convolutions pad the feature channels themselves.
        """
        return (0, 0) if self.margins.frequency == (1, 1) else self.margins.frequency

    @property
    def stages(self) -> list[list[nn.Module]]:
        """Return the modules as a list of lists. Each inner list begins with a strided convolution."""
        stages: list[list[nn.Module]] = []
        for module in self.conv:
            if _is_strided(module):
                stages.append([])
            stages[-1].append(module)
        return stages

    def convolutions(self, stages: int, channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for stage in range(stages):
            modules += [self.strided(channels if stage else 1, channels), nn.ReLU(inplace=True)]
        return modules

    def strided(self, inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
        """Return a strided convolution without padding in time.

        ``forward`` prepends zeros or, in a stream, frames of the previous chunk.
        """
        frequency = 1 if self.margins.frequency == (1, 1) else 0  # a convolution pads both sides by the same number
        return nn.Conv2d(inputs, outputs, self.KERNEL, stride=2, padding=(0, frequency), groups=groups)

    @dispatched
    def subsampled(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None, absent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Subsample features: (B, T, F) -> (B, ceil(T / factor), D).

        With causal downsampling (the zero padding ``CAUSAL``), the output can have one more frame, which the returned
        lengths count. With ``variant="original"`` (the zero padding ``ENDLESS``), the output can also have one more
        frame, which the returned lengths do not count.
        """
        x, valid, stage = x[:, None], lengths, 0  # (B, 1, T, F)
        if self.margins.endless:
            x = self.continued(x, lengths)
        for module in self.conv:
            if _is_strided(module):
                if absent is not None:
                    x, absent = zero_before(x, absent, dim=2), absent // 2
                if not self.margins.endless:
                    x = zero_padding(x, valid, dim=2)
                x, stage = self.with_margins(x, stage, state), stage + 1
                valid = self.margins.frames(valid)
            x = module(x)  # (B, C, T / 2, F / 2) after each strided convolution
        x = zero_padding(x, valid, dim=2)
        return self.out(x.transpose(1, 2).flatten(2)), self.halved(lengths)

    def continued(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``x`` (..., T, F) with zeros after ``lengths`` (B,), extended in time for unlimited zero padding.

        The result has all frames that the convolutions see.
        """
        t, stages = x.size(-2), len(self.stages)
        needed = self.margins.frames(t, stages)
        for _ in range(stages):
            needed = 2 * needed + 1
        x = x if lengths is None else zero_padding(x, lengths, dim=x.dim() - 2)
        return pad(x, (0, 0, 0, needed - t))

    def halved(self, lengths: Tensor) -> Tensor:
        """Return the number of valid encoder frames (B,) for ``lengths`` (B,) feature frames."""
        return (CENTRED if self.margins.endless else self.margins).frames(lengths, len(self.stages))

    def with_margins(self, x: Tensor, stage: int, state: EncoderState | None) -> Tensor:
        if state is None:
            return pad(x, (*self.beside, *self.margins.time))
        past = state.subsampling[stage]
        x, state.subsampling[stage] = with_left_context(x, past, dim=2, advance=x.size(2))
        return x

    def get_sampling_frames(self) -> list[int]:
        return [1, self.factor]

    def get_streaming_cache_size(self) -> list[int]:
        return [0, self.factor + 1]  # chunks end at 1 + n * factor; the prepended frames begin at m * factor

    def init_state(self, batch: int) -> list[Tensor]:
        """Return the zeros that precede the first chunk, for each strided convolution: (B, C, left, F)."""
        halving = [module for module in self.conv if isinstance(module, nn.Conv2d) and _is_strided(module)]
        return [
            module.weight.new_zeros(batch, module.in_channels, self.left, width)
            for module, width in zip(halving, self.margins.widths(self.feat_in, len(halving)))
        ]


class DepthwiseStridingSubsampling(StridingSubsampling):
    """The subsampling of the paper: every convolution after the first is depthwise-separable (section 3.2.3)."""

    def __init__(self, feat_in: int, d_model: int, factor: int, channels: int, margins: Margins | None = None):
        super().__init__(feat_in, d_model, factor, channels, margins)
        for module in self.conv:
            if isinstance(module, nn.Conv2d):
                init_uniform(module, fan_in=module.weight[0].numel())
        init_uniform(self.out, fan_in=d_model * feat_in / (factor.bit_length() - 1))

    def convolutions(self, stages: int, channels: int) -> list[nn.Module]:
        modules: list[nn.Module] = [self.strided(1, channels), nn.ReLU(inplace=True)]
        for _ in range(stages - 1):
            modules += [
                self.strided(channels, channels, groups=channels),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(inplace=True),
            ]
        return modules


class StackingSubsampling(Subsampling):
    """The subsampling that concatenates ``factor`` neighboring frames and projects the result.

    With ``norm``, a LayerNorm normalizes each frame first.
    """

    def __init__(self, feat_in: int, d_model: int, factor: int, norm: bool = False):
        super().__init__()
        self.factor = factor
        self.pre_norm = nn.LayerNorm(feat_in) if norm else None
        self.proj_out = nn.Linear(factor * feat_in, d_model)

    def subsampled(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None, absent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Subsample features: (B, T, F) -> (B, ceil(T / factor), D). Also return the number of encoder frames (B,)."""
        x = pad(zero_padding(x, lengths), (0, 0, 0, self.factor - 1))
        x = x[:, : x.size(1) // self.factor * self.factor]
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        x = x.reshape(x.size(0), -1, self.factor * x.size(2))  # (B, ceil(T / factor), factor * F)
        return self.proj_out(x), (lengths + self.factor - 1) // self.factor


class NoSubsampling(Subsampling):
    """A projection of every frame without subsampling, for sequences that are already short."""

    def __init__(self, feat_in: int, d_model: int):
        super().__init__()
        projection = nn.Linear(feat_in, d_model)
        self.weight, self.bias = projection.weight, projection.bias  # NeMo's names: pre_encode.weight, pre_encode.bias

    def subsampled(
        self, x: Tensor, lengths: Tensor, state: EncoderState | None, absent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Project each frame: (B, T, F) -> (B, T, D). Also return ``lengths`` (B,) unchanged."""
        return linear(zero_padding(x, lengths), self.weight, self.bias), lengths


SUBSAMPLINGS = ("dw_striding", "striding", "stacking", "stacking_norm")


def build_subsampling(
    kind: str | None, feat_in: int, d_model: int, factor: int, channels: int, margins: Margins = CENTRED
) -> nn.Module:
    """Return the subsampling called ``kind`` in NeMo's recipes.

    ``kind=None`` or a ``factor`` of 1 means a projection without subsampling.

    Raises:
        ValueError: ``kind`` is unknown, ``kind`` is ``vggnet``, or ``kind`` does not support ``factor``.
    """
    if factor < 1:
        raise ValueError(f"subsampling_factor={factor} must be at least 1 (1 means no subsampling)")
    if kind == "vggnet":
        raise ValueError("subsampling='vggnet' fails in NeMo's masked convolution; use 'dw_striding' or 'striding'")
    if kind and kind not in SUBSAMPLINGS:
        raise ValueError(f"subsampling={kind!r}: expected one of {', '.join(SUBSAMPLINGS)}, or null for no subsampling")
    if not kind or factor == 1:
        return NoSubsampling(feat_in, d_model)
    if kind.startswith("stacking"):
        return StackingSubsampling(feat_in, d_model, factor, norm=kind == "stacking_norm")
    striding = DepthwiseStridingSubsampling if kind == "dw_striding" else StridingSubsampling
    return striding(feat_in, d_model, factor, channels, margins)


def zero_padding(x: Tensor, lengths: Tensor, dim: int = 1) -> Tensor:
    """Return ``x`` with zeros in frame ``lengths`` (B,) and in all later frames along ``dim``."""
    return _with_zeros(x, torch.arange(x.size(dim), device=x.device) >= lengths[:, None], dim)


def zero_before(x: Tensor, first: Tensor, dim: int) -> Tensor:
    """Return ``x`` with zeros before frame ``first`` (B,) along ``dim``."""
    return _with_zeros(x, torch.arange(x.size(dim), device=x.device) < first[:, None], dim)


def _with_zeros(x: Tensor, frames: Tensor, dim: int) -> Tensor:
    """Return ``x`` with zeros along ``dim`` where ``frames`` (B, T) is True."""
    return x.masked_fill(frames.view(frames.shape[:1] + (1,) * (dim - 1) + frames.shape[1:] + (1,)), 0.0)


def _is_strided(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.stride == (2, 2)
