"""A model's own features of audio that is still coming: frame for frame those of the whole recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram

OVER_THE_UTTERANCE = ("per_feature", "all_features")


@dataclass
class _Stream:
    samples: Tensor = field(default_factory=lambda: torch.zeros(0))  # those that frames to come still need
    first: int = 0  # of which number samples[0] is, a multiple of the hop
    received: int = 0
    given: int = 0  # frames
    ended: bool = False


class FeatureStream:
    """Runs NeMo's ``preprocessor`` on windows of ``slots`` streams, wide enough that their frames are the whole's.

    A frame is there as soon as the last sample that its window weighs is; at the end of a stream the others follow, as
    many as NeMo counts. No more samples are kept than the next frame needs.

    Raises:
        ValueError: for features that depend on more than a window of the audio.
    """

    def __init__(self, preprocessor: Any, slots: int):
        from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures

        featurizer = getattr(preprocessor, "featurizer", None)
        if isinstance(featurizer, OriginalMelSpectrogram):
            raise ValueError(
                "its features, the authors', are normalised over the whole utterance, which no stream has; transcribe "
                "whole recordings (nemo-squeezeformer transcribe)"
            )
        if not isinstance(featurizer, FilterbankFeatures):
            raise ValueError(
                f"features of class {type(featurizer or preprocessor).__name__} are not streamed; "
                "use AudioToMelSpectrogramPreprocessor"
            )
        if featurizer.normalize in OVER_THE_UTTERANCE:
            raise ValueError(
                f"preprocessor.normalize={featurizer.normalize!r} needs the whole utterance before its first feature; "
                "train with normalize='NA', as the streaming recipes do, or use buffered inference, which normalises "
                "each window"
            )
        for name, usual in (("exact_pad", False), ("frame_splicing", 1)):
            if getattr(featurizer, name) != usual:
                raise ValueError(
                    f"preprocessor.{name}={getattr(featurizer, name)!r} is not streamed; it must be {usual!r}"
                )
        self.preprocessor, self.hop, self.frames_of = preprocessor, featurizer.hop_length, featurizer.get_seq_len
        self.device = featurizer.fb.device
        # The window lies in the middle of the FFT's samples, which are centred on the frame's own.
        before = featurizer.n_fft // 2 - (featurizer.n_fft - featurizer.win_length) // 2
        self.reach = max(featurizer.win_length - before, self.hop)  # samples from a frame's own on that it needs
        self.margin = -(-(before + 1) // self.hop)  # frames at a window's start that lack some; 1 is pre-emphasis
        self.streams = [_Stream() for _ in range(slots)]

    def open(self, slot: int) -> None:
        """A new stream begins."""
        self.streams[slot] = _Stream()

    def push(self, slot: int, samples: Tensor) -> None:
        """Adds (T,) samples, of the model's rate."""
        stream = self.streams[slot]
        stream.samples = torch.cat([stream.samples, samples])
        stream.received += len(samples)

    def end(self, slot: int) -> None:
        """No more samples will come."""
        self.streams[slot].ended = True

    def ended(self, slot: int) -> bool:
        return self.streams[slot].ended

    def available(self, slot: int) -> int:
        """Frames since the stream's beginning that there are samples for; of a stream that has ended, all of its."""
        stream = self.streams[slot]
        if stream.ended:
            return int(self.frames_of(torch.tensor(stream.received))) if stream.received else 0
        return max((stream.received - self.reach) // self.hop + 1, 0)

    def missing(self, slot: int, frames: int) -> int:
        """How many samples must still come until ``frames`` frames are available."""
        stream = self.streams[slot]
        return 0 if stream.ended else max((frames - 1) * self.hop + self.reach - stream.received, 0)

    def take(self, slots: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
        """The next ``counts`` frames of each of ``slots``, (F, count); they must be available."""
        windows, skipped = [], []
        for slot, count in zip(slots, counts):
            stream = self.streams[slot]
            stop = (stream.given + count - 1) * self.hop + self.reach - stream.first
            windows.append(stream.samples[:stop])
            skipped.append(stream.given - stream.first // self.hop)
        lengths = torch.tensor([len(window) for window in windows], device=self.device)
        features, _ = self.preprocessor(
            input_signal=pad_sequence(windows, batch_first=True).to(self.device), length=lengths
        )
        for slot, count in zip(slots, counts):
            self._forget(self.streams[slot], count)
        return [rows[:, skip : skip + count] for rows, skip, count in zip(features, skipped, counts)]

    def _forget(self, stream: _Stream, count: int) -> None:
        """Moves on by ``count`` frames, and lets go of the samples that no frame to come needs."""
        stream.given += count
        first = max(stream.given - self.margin, 0) * self.hop
        stream.samples = stream.samples[first - stream.first :].clone()
        stream.first = first
