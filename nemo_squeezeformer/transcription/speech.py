"""The samples of utterances for NeMo's models, in batches, with one channel and at the sample rate of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.files.manifests import Utterance


class Speech:
    """A data set for a DataLoader. An item is the samples (T,) of an utterance.

    The samples have one channel and the sample rate of the model.
    """

    def __init__(self, utterances: Sequence[Utterance], sample_rate: int, channel: str | int) -> None:
        self.utterances, self.sample_rate, self.channel = utterances, sample_rate, channel

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> Any:
        import numpy as np
        import torch
        from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

        utterance = self.utterances[index]
        paths = utterance.audio if isinstance(utterance.audio, list) else [utterance.audio]
        # AudioSegment.from_file of NeMo 2.7.3 depends on the file extension, and needs ffmpeg for .opus, .mp3 or .FLAC.
        read = [_read(path, utterance) for path in paths]
        samples = np.stack([samples for samples, _ in read], axis=-1) if len(read) > 1 else read[0][0]
        channel = self.channel if utterance.channels > 1 else None
        segment = AudioSegment(samples, read[0][1], target_sr=self.sample_rate, channel_selector=channel)
        return torch.as_tensor(segment.samples)


def _read(path: str, utterance: Utterance) -> tuple[Any, int]:
    """Return the samples (T,) or (T, channels) of an utterance, and the sample rate of the file ``path``."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        file.seek(int(utterance.offset * file.samplerate))
        duration = utterance.row.get("duration")
        frames = int(duration * file.samplerate) if duration else -1  # -1: up to the end
        return file.read(frames, dtype="float32"), file.samplerate


def collate(signals: Sequence[Any]) -> tuple[Any, Any, None, None]:
    """Return a batch for NeMo's models: samples (B, T), lengths (B,), and None for the text and the text lengths."""
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(signals), batch_first=True)
    return padded, torch.tensor([len(signal) for signal in signals]), None, None
