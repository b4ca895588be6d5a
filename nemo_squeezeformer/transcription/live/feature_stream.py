"""The features of live audio. Each frame equals the corresponding frame of the features of the whole recording."""

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
    samples: Tensor = field(default_factory=lambda: torch.zeros(0))  # (T,), the samples that later frames need
    first: int = 0  # index in the stream of samples[0], a multiple of the hop
    received: int = 0  # number of samples pushed
    given: int = 0  # number of frames taken
    ended: bool = False


class FeatureStream:
    """The features of several simultaneous streams. Each stream has a slot, which is a number from 0.

    NeMo's preprocessor processes a window of the samples of each stream. The window is so wide that the frames of the
    window equal the frames of the whole recording. A frame is available when the last sample that the frame needs has
    arrived. At the end of a stream all remaining frames become available, up to the number of frames that NeMo counts.
    Only the samples that the next frame needs are kept.

    Args:
        preprocessor: NeMo's ``AudioToMelSpectrogramPreprocessor``.
        slots: the number of streams.

    Raises:
        ValueError: the features depend on more than a window of the audio.
    """

    def __init__(self, preprocessor: Any, slots: int):
        from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures

        featurizer = getattr(preprocessor, "featurizer", None)
        if isinstance(featurizer, OriginalMelSpectrogram):
            raise ValueError(
                "the features of the authors' models are normalized over the whole utterance, which a stream does not "
                "have; transcribe whole recordings with `nemo-squeezeformer transcribe`, or overlapping windows with "
                "`nemo-squeezeformer stream`"
            )
        if not isinstance(featurizer, FilterbankFeatures):
            raise ValueError(
                f"features of class {type(featurizer or preprocessor).__name__} cannot be streamed; "
                "use a model with AudioToMelSpectrogramPreprocessor"
            )
        if featurizer.normalize in OVER_THE_UTTERANCE:
            raise ValueError(
                f"preprocessor.normalize={featurizer.normalize!r} needs the whole utterance before its first feature; "
                "train with normalize='NA', as the streaming recipes do, or transcribe overlapping windows with "
                "`nemo-squeezeformer stream`, which normalizes each window"
            )
        for name, usual in (("exact_pad", False), ("frame_splicing", 1)):
            if getattr(featurizer, name) != usual:
                raise ValueError(
                    f"preprocessor.{name}={getattr(featurizer, name)!r} cannot be streamed: expected {usual!r}"
                )
        self.preprocessor, self.hop, self.frames_of = preprocessor, featurizer.hop_length, featurizer.get_seq_len
        self.device = featurizer.fb.device
        # The FFT is centered on the first sample of the frame. The window is in the middle of the FFT.
        before = featurizer.n_fft // 2 - (featurizer.n_fft - featurizer.win_length) // 2
        self.reach = max(featurizer.win_length - before, self.hop)  # samples that a frame needs from its first sample
        # Number of frames at the start of a window that lack earlier samples. Pre-emphasis needs 1 more sample.
        self.margin = -(-(before + 1) // self.hop)
        self.streams = [_Stream() for _ in range(slots)]

    def open(self, slot: int) -> None:
        """Begin a new stream in ``slot``."""
        self.streams[slot] = _Stream()

    def push(self, slot: int, samples: Tensor) -> None:
        """Add samples (T,) at the sample rate of the model."""
        stream = self.streams[slot]
        stream.samples = torch.cat([stream.samples, samples])
        stream.received += len(samples)

    def end(self, slot: int) -> None:
        """Mark the end of the stream: no more samples will be pushed."""
        self.streams[slot].ended = True

    def ended(self, slot: int) -> bool:
        """Return True if ``end`` has been called for this stream."""
        return self.streams[slot].ended

    def available(self, slot: int) -> int:
        """Return the number of available frames, counted from the start of the stream.

        After the end of the stream, this is the total number of frames of the stream.
        """
        stream = self.streams[slot]
        if stream.ended:
            return int(self.frames_of(torch.tensor(stream.received))) if stream.received else 0
        return max((stream.received - self.reach) // self.hop + 1, 0)

    def missing(self, slot: int, frames: int) -> int:
        """Return the number of samples to push until ``frames`` frames are available."""
        stream = self.streams[slot]
        return 0 if stream.ended else max((frames - 1) * self.hop + self.reach - stream.received, 0)

    def take(self, slots: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
        """Return the next frames of several streams: (F, ``counts[i]``) for the stream in ``slots[i]``.

        The frames must be available.
        """
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
        """Advance by ``count`` frames, and drop the samples that no later frame needs."""
        stream.given += count
        first = max(stream.given - self.margin, 0) * self.hop
        stream.samples = stream.samples[first - stream.first :].clone()
        stream.first = first
