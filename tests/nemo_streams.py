"""Streams of features through an encoder as NeMo's own buffer cuts them, and the whole that they must equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import soundfile
import torch
from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer
from torch import Tensor

Caches = tuple[Tensor, Tensor, Tensor]


def buffer_of(model: Any, utterances: Sequence[Tensor], **settings: Any) -> CacheAwareStreamingAudioBuffer:
    """NeMo's buffer for ``model``, with (F, T) features of each stream in it."""
    buffer = CacheAwareStreamingAudioBuffer(model=model, **settings)
    for utterance in utterances:
        buffer.append_processed_signal(utterance[None], stream_id=-1)
    return buffer


def steps(model: Any, utterances: Sequence[Tensor], forget: bool = False) -> Iterator[tuple[Tensor, Tensor, Caches]]:
    """What ``cache_aware_stream_step`` gives for each chunk: encodings, their lengths and the next caches.

    ``forget``: no chunk gets the caches of the one before.
    """
    encoder = model.encoder
    buffer = buffer_of(model, utterances)
    fresh = caches = encoder.get_initial_cache_state(len(utterances))
    for step, (chunk, lengths) in enumerate(buffer):
        with torch.no_grad():
            encoded, encoded_lengths, *caches = encoder.cache_aware_stream_step(
                processed_signal=chunk,
                processed_signal_length=lengths,
                cache_last_channel=caches[0],
                cache_last_time=caches[1],
                cache_last_channel_len=caches[2],
                keep_all_outputs=buffer.is_buffer_empty(),
                drop_extra_pre_encoded=encoder.streaming_cfg.drop_extra_pre_encoded if step else 0,
            )
        yield encoded, encoded_lengths, tuple(caches)
        if forget:
            caches = fresh


def streamed(model: Any, utterances: Sequence[Tensor], forget: bool = False) -> list[Tensor]:
    """(D, T) of each stream, chunk after chunk."""
    outputs = [(encoded, lengths) for encoded, lengths, _ in steps(model, utterances, forget)]
    return [torch.cat([x[i, :, : n[i]] for x, n in outputs], dim=1) for i in range(len(utterances))]


def offline(encoder: Any, utterances: Sequence[Tensor]) -> list[Tensor]:
    """(D, T) of each utterance, all in one batch, each as a whole."""
    lengths = torch.tensor([x.size(1) for x in utterances])
    batch = torch.nn.utils.rnn.pad_sequence([x.T for x in utterances], batch_first=True).transpose(1, 2)
    with torch.no_grad():
        encoded, encoded_lengths = encoder(audio_signal=batch, length=lengths)
    return [x[:, :n] for x, n in zip(encoded, encoded_lengths)]


def noise(frames: Sequence[int], channels: int, seed: int = 0) -> list[Tensor]:
    """(F, T) of unit variance for each number of ``frames``."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, t, generator=generator) for t in frames]


def texts(hypotheses: list[Any]) -> list[str]:
    return [getattr(hypothesis, "text", hypothesis) for hypothesis in hypotheses]


def streamed_texts(model: Any, paths: list[str], forget: bool = False) -> list[str]:
    """What NeMo's streaming program does with a batch of files."""
    buffer = buffer_of(model, [])
    for path in paths:
        buffer.append_audio(soundfile.read(path, dtype="float32")[0], stream_id=-1)
    caches = model.encoder.get_initial_cache_state(len(paths))
    predictions = hypotheses = decoded = None
    for step, (chunk, lengths) in enumerate(buffer):
        if forget:
            caches = model.encoder.get_initial_cache_state(len(paths))
        with torch.inference_mode():
            predictions, decoded, *caches, hypotheses = model.conformer_stream_step(
                processed_signal=chunk,
                processed_signal_length=lengths,
                cache_last_channel=caches[0],
                cache_last_time=caches[1],
                cache_last_channel_len=caches[2],
                keep_all_outputs=buffer.is_buffer_empty(),
                previous_hypotheses=hypotheses,
                previous_pred_out=predictions,
                drop_extra_pre_encoded=model.encoder.streaming_cfg.drop_extra_pre_encoded if step else 0,
                return_transcription=True,
            )
    assert decoded is not None
    return texts(decoded)
