"""How alike the frames of an utterance are after every block of an encoder (paper, section 3.1.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import pstdev
from typing import Any

import torch
from torch import Tensor

from nemo_squeezeformer.errors import UserError

DISTANCES = (1, 2, 3, 4)  # frames apart; the paper's figure


@dataclass
class Mean:
    """A mean of cosine similarities that grows an utterance at a time; every pair of frames counts once."""

    total: float = 0.0
    pairs: int = 0
    of_utterances: list[float] = field(default_factory=list)

    def add(self, total: float, pairs: int) -> None:
        if pairs:
            self.total, self.pairs = self.total + total, self.pairs + pairs
            self.of_utterances.append(total / pairs)

    @property
    def value(self) -> float:
        """NaN where no utterance has two frames so far apart."""
        return self.total / self.pairs if self.pairs else math.nan

    @property
    def spread(self) -> float:
        """The standard deviation of the utterances' own means."""
        return pstdev(self.of_utterances) if self.of_utterances else math.nan


@dataclass
class Block:
    """Frames after the block of this number, from 1; number 0 is what enters the first."""

    number: int
    frame_ms: float = math.nan  # milliseconds from one frame to the next, here
    frames: int = 0
    neighbours: dict[int, Mean] = field(default_factory=lambda: {distance: Mean() for distance in DISTANCES})
    any_two: Mean = field(default_factory=Mean)  # of the same utterance: what is alike for another reason than nearness

    def add(self, x: Tensor) -> None:
        """x: (T, D), the valid frames of one utterance."""
        t = len(x)
        unit = torch.nn.functional.normalize(x.double(), dim=-1)
        for distance, mean in self.neighbours.items():
            mean.add(float((unit[distance:] * unit[: max(0, t - distance)]).sum()), max(0, t - distance))
        self.any_two.add((float(unit.sum(0).square().sum()) - t) / 2, t * (t - 1) // 2)
        self.frames += t


def measure(preprocessor: Any, encoder: Any, speech: Iterable[Tensor]) -> list[Block]:
    """Mean cosine similarities of the frames that enter the first block, and of those after every block.

    A block is an entry of ``encoder.layers``, and what it gives is measured as the next block gets it: after the
    LayerNorm that ends Conformer's and Squeezeformer's. Utterances go through one at a time, their features cut to
    their length, so that there is no padding at all.

    Args:
        preprocessor, encoder: those of a NeMo model in evaluation mode.
        speech: samples (T,) at the preprocessor's rate.

    Raises:
        UserError: the encoder has no ``layers``, or no utterance gave two frames.
    """
    from nemo_squeezeformer.integration.latency import feature_ms

    layers = getattr(encoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or not len(layers):
        raise UserError(
            f"an encoder of class {type(encoder).__name__} has no list `layers` of blocks to look between; give a "
            "model with an encoder like Conformer, FastConformer or Squeezeformer"
        )
    blocks = [Block(number) for number in range(len(layers) + 1)]
    heard = _add_utterances(blocks, preprocessor, encoder, speech)
    if not blocks[-1].any_two.pairs:
        raise UserError("no utterance is long enough for two frames after the last block; give longer ones")
    # Odd lengths leave ratios a little less than 2, 4 and so on. NeMo 2.7.3's Squeezeformer does not tell its factor.
    factor = getattr(encoder, "subsampling_factor", 2 ** round(math.log2(heard / blocks[0].frames)))
    hop = feature_ms(preprocessor)
    for block in blocks:
        block.frame_ms = round(hop * factor * 2 ** round(math.log2(blocks[0].frames / block.frames)), 3)
    return blocks


def _add_utterances(blocks: list[Block], preprocessor: Any, encoder: Any, speech: Iterable[Tensor]) -> int:
    """Adds the frames of all utterances to ``blocks``; how many feature frames they have."""
    device, heard = next(encoder.parameters()).device, 0
    # A compiled layer would run without the hooks.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"), _recorded(encoder.layers) as outputs:
        for samples in speech:
            outputs.clear()
            length = torch.tensor([len(samples)], device=device)
            features, lengths = preprocessor(input_signal=samples[None].to(device), length=length)
            if not int(lengths[0]):
                continue
            heard += int(lengths[0])
            features = features[..., : int(lengths[0])]  # NeMo pads them to a multiple of 16
            _, encoded, *_ = encoder(audio_signal=features, length=lengths)
            for block, x in zip(blocks, _valid(outputs, int(encoded[0]))):
                block.add(x)
    return heard


@contextmanager
def _recorded(layers: torch.nn.ModuleList) -> Iterator[list[Tensor]]:
    """A list that gets (B, T, D) whenever the first layer is entered, and whenever one is left."""
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
    """(1, T, D) of each block -> (T, D), without the frame past the end that masks of ``variant="original"`` let in.

    ``length`` counts frames that the encoder gives; a block at half their rate has half as many, rounded up.
    """
    t = outputs[-1].size(1)
    for (x,) in outputs:
        step = round(t / len(x))
        yield x[: math.ceil(length / step)] if step else x  # 0: the rate falls after this block, for good


def untrained(model: Any) -> Any:
    """A new encoder by the model's configuration, on its device and in evaluation mode; the same at every call."""
    from nemo.core.classes import Serialization

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder: Any = Serialization.from_config_dict(model.cfg.encoder)
    return encoder.to(next(model.encoder.parameters()).device).eval()
