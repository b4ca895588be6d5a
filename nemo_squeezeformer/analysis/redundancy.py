"""The similarity of the frames of an utterance after every block of an encoder (section 3.1.1 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import pstdev
from typing import Any

import torch
from torch import Tensor, nn

from nemo_squeezeformer.errors import UserError

DISTANCES = (1, 2, 3, 4)  # distances between two frames, as in the figure of the paper


@dataclass
class Mean:
    """A mean of cosine similarities over all utterances that are added. Every pair of frames counts once."""

    total: float = 0.0
    pairs: int = 0
    of_utterances: list[float] = field(default_factory=list)

    def add(self, total: float, pairs: int) -> None:
        """Add the sum of the similarities of all pairs of frames of an utterance, and the number of these pairs."""
        if pairs:
            self.total, self.pairs = self.total + total, self.pairs + pairs
            self.of_utterances.append(total / pairs)

    @property
    def value(self) -> float:
        """The mean, or NaN if no utterance has two frames at this distance."""
        return self.total / self.pairs if self.pairs else math.nan

    @property
    def spread(self) -> float:
        """The standard deviation of the means of the utterances."""
        return pstdev(self.of_utterances) if self.of_utterances else math.nan


@dataclass
class Block:
    """The similarities of the frames after a block.

    The number of the first block is 1. The number 0 stands for the input of the first block.
    """

    number: int
    frame_ms: float = math.nan  # milliseconds from one frame to the next frame at this block
    frames: int = 0
    neighbours: dict[int, Mean] = field(default_factory=lambda: {distance: Mean() for distance in DISTANCES})
    # The mean over all pairs of frames of an utterance is a baseline, because these pairs have any distance.
    any_two: Mean = field(default_factory=Mean)

    def add(self, x: Tensor) -> None:
        """Add the valid frames of one utterance, (T, D)."""
        t = len(x)
        unit = torch.nn.functional.normalize(x.double(), dim=-1)
        for distance, mean in self.neighbours.items():
            mean.add(float((unit[distance:] * unit[: max(0, t - distance)]).sum()), max(0, t - distance))
        self.any_two.add((float(unit.sum(0).square().sum()) - t) / 2, t * (t - 1) // 2)
        self.frames += t


def measure(preprocessor: Any, encoder: nn.Module, speech: Iterable[Tensor]) -> list[Block]:
    """Measure the mean cosine similarities of the frames before the first block and after every block.

    A block is an entry of ``encoder.layers``. The function measures the output that the next block receives, which is
    the output after the LayerNorm at the end of a Conformer or Squeezeformer block. The encoder processes one utterance
    at a time, and the features are cut to the length of the utterance. The frames therefore contain no padding.

    Args:
        preprocessor: the preprocessor of a NeMo model in evaluation mode.
        encoder: an encoder in evaluation mode.
        speech: samples (T,) at the preprocessor's sample rate.

    Raises:
        UserError: the encoder has no ``layers``, or no utterance gives two frames.
    """
    from nemo_squeezeformer.integration.latency import feature_ms

    layers = getattr(encoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        raise UserError(
            f"an encoder of class {type(encoder).__name__} has no list `layers` of blocks to measure; give a "
            "model with a Conformer, FastConformer or Squeezeformer encoder"
        )
    blocks = [Block(number) for number in range(len(layers) + 1)]
    heard = _add_utterances(blocks, preprocessor, encoder, layers, speech)
    if not blocks[-1].any_two.pairs:
        raise UserError("no utterance is long enough for two frames after the last block; give longer utterances")
    # With odd lengths a ratio is a little below a power of 2, so the ratio is rounded. The Squeezeformer of NeMo 2.7.3
    # has no attribute for the subsampling factor.
    factor = getattr(encoder, "subsampling_factor", 2 ** round(math.log2(heard / blocks[0].frames)))
    hop = feature_ms(preprocessor)
    for block in blocks:
        block.frame_ms = round(hop * factor * 2 ** round(math.log2(blocks[0].frames / block.frames)), 3)
    return blocks


def _add_utterances(
    blocks: list[Block], preprocessor: Any, encoder: nn.Module, layers: nn.ModuleList, speech: Iterable[Tensor]
) -> int:
    """Add the frames of all utterances to ``blocks``, and return the total number of feature frames."""
    device, heard = next(encoder.parameters()).device, 0
    # A compiled layer would run without the hooks.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"), _recorded(layers) as outputs:
        for samples in speech:
            outputs.clear()
            length = torch.tensor([len(samples)], device=device)
            features, lengths = preprocessor(input_signal=samples[None].to(device), length=length)
            if not int(lengths[0]):
                continue
            heard += int(lengths[0])
            features = features[..., : int(lengths[0])]  # NeMo pads features to a multiple of 16 frames
            _, encoded, *_ = encoder(audio_signal=features, length=lengths)
            for block, x in zip(blocks, _valid(outputs, int(encoded[0]))):
                block.add(x)
    return heard


@contextmanager
def _recorded(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Record the input (B, T, D) of the first layer and the output (B, T, D) of every layer in the yielded list."""
    outputs: list[Tensor] = []

    def entered(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outputs.append(args[0] if args else kwargs["x"])

    def left(layer: Any, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layers[0].register_forward_pre_hook(entered, with_kwargs=True)]
    hooks += [layer.register_forward_hook(left) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _valid(outputs: list[Tensor], length: int) -> Iterator[Tensor]:
    """Yield the valid frames (T, D) of each recorded tensor (1, T, D).

    The masks of ``variant="original"`` treat one frame past the end as valid. This function removes the frame.

    Args:
        outputs: the recorded inputs and outputs of the blocks.
        length: number of valid encoder frames. A block at half the frame rate has half this number, rounded up.
    """
    t = outputs[-1].size(1)
    for (x,) in outputs:
        step = round(t / len(x))
        yield x[: math.ceil(length / step)] if step else x  # 0: the encoder lowers the frame rate after this block


def untrained(model: Any) -> nn.Module:
    """Return a new encoder with random weights from the model's configuration.

    The encoder is on the device of the model and in evaluation mode. Every call gives equal weights.
    """
    from nemo.core.classes import Serialization

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Serialization.from_config_dict(model.cfg.encoder)
    return encoder.to(next(model.encoder.parameters()).device).eval()
