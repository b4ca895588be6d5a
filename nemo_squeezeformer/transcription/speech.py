"""The samples of utterances as NeMo's models take them to transcribe: one channel at the model's rate, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.files.manifests import Utterance


class Speech:
    """What a DataLoader asks of a data set: each utterance's samples, (T,), one channel at the model's rate."""

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
        # Not AudioSegment.from_file: NeMo 2.7.3's goes by the extension, and wants ffmpeg for .opus, .mp3 or .FLAC.
        read = [_read(path, utterance) for path in paths]
        samples = np.stack([samples for samples, _ in read], axis=-1) if len(read) > 1 else read[0][0]
        channel = self.channel if utterance.channels > 1 else None
        segment = AudioSegment(samples, read[0][1], target_sr=self.sample_rate, channel_selector=channel)
        return torch.as_tensor(segment.samples)


def _read(path: str, utterance: Utterance) -> tuple[Any, int]:
    """The utterance's samples, (T,) or (T, channels), and their rate."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        file.seek(int(utterance.offset * file.samplerate))
        duration = utterance.row.get("duration")
        frames = int(duration * file.samplerate) if duration else -1  # -1: to the end
        return file.read(frames, dtype="float32"), file.samplerate


def collate(signals: Sequence[Any]) -> tuple[Any, Any, None, None]:
    """The batch that NeMo's models take for transcribing: samples (B, T), their lengths (B), no text."""
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(signals), batch_first=True)
    return padded, torch.tensor([len(signal) for signal in signals]), None, None
