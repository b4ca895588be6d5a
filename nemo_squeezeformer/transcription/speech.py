"""The samples of utterances for NeMo's models, in batches, with one channel and at the sample rate of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch.utils.data import DataLoader

from nemo_squeezeformer.files.audio import open_audio
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.transcription.readable import UNREADABLE, unreadable, wrong_values


class Sound(NamedTuple):
    """The samples (T,) of an utterance. The samples are None if the utterance has a problem or is too short.

    Attributes:
        samples: the samples with one channel and at the sample rate of the model.
        problem: the reason why the samples cannot be read or cannot be used.
    """

    samples: Any = None
    problem: str = ""


class Sounds(Protocol):
    """The sounds of a DataLoader, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sound: ...


class Speech:
    """A data set for a DataLoader. An item is the ``Sound`` of an utterance.

    A problem of the audio is a part of the item and not an exception. The exception of a worker process would end all
    batches, and would not contain the name of the file.

    Args:
        utterances: the utterances to read.
        sample_rate: sample rate of the model in Hz.
        channel: the channel of audio with several channels: ``"average"`` or a number from 0.
        shortest: number of samples of the shortest utterance that the model can process.
    """

    def __init__(
        self, utterances: Sequence[Utterance], sample_rate: int, channel: str | int, shortest: int = 1
    ) -> None:
        self.utterances, self.sample_rate, self.channel, self.shortest = utterances, sample_rate, channel, shortest

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Sound:
        utterance = self.utterances[index]
        try:
            return self._sound(utterance)
        except UNREADABLE as error:
            return Sound(None, unreadable(utterance.audio, error))

    def _sound(self, utterance: Utterance) -> Sound:
        import numpy as np
        import torch
        from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

        paths = utterance.audio if isinstance(utterance.audio, list) else [utterance.audio]
        # AudioSegment.from_file of NeMo 2.7.3 depends on the file extension, and needs ffmpeg for .opus, .mp3 or .FLAC.
        read = [_read(path, utterance) for path in paths]
        problem = next((problem for _, _, problem in read if problem), "")
        if problem:
            return Sound(None, problem)
        samples = np.stack([samples for samples, _, _ in read], axis=-1) if len(read) > 1 else read[0][0]
        channel = self.channel if utterance.channels > 1 else None
        segment = AudioSegment(samples, read[0][1], target_sr=self.sample_rate, channel_selector=channel)
        return Sound(torch.as_tensor(segment.samples) if len(segment.samples) >= self.shortest else None)


def _read(path: str, utterance: Utterance) -> tuple[Any, int, str]:
    """Return the samples (T,) or (T, channels) of an utterance, the sample rate of the file, and the problem."""
    with open_audio(path) as file:
        file.seek(int(utterance.offset * file.samplerate))
        duration = utterance.row.get("duration")
        samples = file.read(int(duration * file.samplerate) if duration else -1)  # -1: up to the end
        return samples, file.samplerate, wrong_values(path, samples, file.samplerate, utterance.offset)


class SpeechBatches(DataLoader[Any]):
    """A DataLoader for NeMo's models. A batch has samples (B, T), lengths (B,), and None for the text and its lengths.

    A batch has only the utterances with samples. A batch without any samples is left out.

    Attributes:
        sounds: the ``Sound`` of all utterances up to the last batch, without the samples. ``None`` of ``samples`` means
            that the utterance is not in a batch. The reader of the batches empties this list.
    """

    def __init__(self, speech: Sounds, batches: Sequence[Sequence[int]], num_workers: int) -> None:
        super().__init__(speech, batch_sampler=batches, num_workers=num_workers, collate_fn=collate)  # type: ignore[arg-type]
        self.sounds: list[Sound] = []

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for sounds, batch in super().__iter__():
            self.sounds += sounds
            if batch:
                yield batch


def collate(sounds: Sequence[Sound]) -> tuple[list[Sound], tuple[Any, Any, None, None] | None]:
    """Return the sounds with True in place of their samples, and a batch for NeMo's models (None if it is empty)."""
    import torch

    signals = [sound.samples for sound in sounds if sound.samples is not None]
    marks = [sound._replace(samples=None if sound.samples is None else True) for sound in sounds]
    if not signals:
        return marks, None
    padded = torch.nn.utils.rnn.pad_sequence(signals, batch_first=True)
    return marks, (padded, torch.tensor([len(signal) for signal in signals]), None, None)


def shortest_samples(preprocessor: Any) -> int:
    """Return the number of samples of the shortest audio that has a feature frame."""
    import bisect

    import torch

    frames_of = getattr(getattr(preprocessor, "featurizer", None), "get_seq_len", None)
    if frames_of is None:
        return 1
    some = range(1, preprocessor._sample_rate)
    return 1 + bisect.bisect_left(some, 1, key=lambda samples: int(frames_of(torch.tensor(samples))))
