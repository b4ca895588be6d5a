"""Streams that NeMo's buffer cuts into chunks, and the offline results to which they must be equal."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import soundfile
import torch
from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer
from torch import Tensor

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.encoders import SMALL, enliven

Caches = tuple[Tensor, Tensor, Tensor]
LATENCIES = {480: [24, 11], 160: [24, 3], 80: [24, 1]}  # milliseconds: attention context
UNETS = {"no unet": (None, None), "one": (1, 2), "nested": ([1, 2], [4, 3])}
STYLES = ("chunked_limited", "dcc", "dcc, look-ahead", "regular", "regular, look-ahead", "stacking")


def streaming_encoder(style: str, unet: str = "one", seed: int = 0, chunk: int | None = None, **changes: Any) -> Any:
    """Return a random encoder with this ``style`` of context, and chunks of 2 to 32 frames."""
    rng = random.Random(f"{style}, {unet}, {seed}")
    halves = {"no unet": 1, "one": 2, "nested": 4}[unet]
    chunk = chunk or halves * rng.randint(max(1, 2 // halves), 32 // halves)
    kernel = rng.choice([1, 5, 7])
    left = rng.choice([0, 1, 2])
    contexts: dict[str, dict[str, Any]] = {
        "chunked_limited": {"att_context_size": [left * chunk, chunk - 1]},
        "stacking": {"att_context_size": [left * chunk, chunk - 1], "subsampling": "stacking"},
        "dcc": {"att_context_size": [rng.randint(0, 12), chunk, 0]},
        "dcc, look-ahead": {"att_context_size": [rng.randint(0, 12), chunk, halves * rng.randint(1, 2)]},
        "regular": {"att_context_size": [rng.randint(0, 12), 0], "att_context_style": "regular"},
        "regular, look-ahead": {
            "att_context_size": [rng.randint(0, 12), rng.randint(1, 3)],
            "att_context_style": "regular",
            "conv_context_size": rng.choice([None, "causal"]) and [kernel // 2, kernel // 2],
        },
    }
    settings = contexts[style]
    if style.startswith("dcc"):
        settings |= {"att_context_style": "chunked_limited_with_rc", "conv_context_style": "dcc"}
    settings |= {"time_reduce_idx": UNETS[unet][0], "time_recovery_idx": UNETS[unet][1]}
    settings |= {"n_layers": 5, "feat_in": 16, "conv_kernel_size": kernel, "streaming": True}
    settings |= {"subsampling_factor": rng.choice([4, 8]), "block": rng.choice(["squeezeformer", "conformer"])}
    torch.manual_seed(seed)
    encoder = SqueezeformerEncoder(**(SMALL | {"subsampling_conv_channels": 8} | settings | changes)).eval()
    enliven(encoder, seed)
    return encoder


def buffer_of(model: Any, utterances: Sequence[Tensor], **settings: Any) -> CacheAwareStreamingAudioBuffer:
    """Return NeMo's buffer for ``model``, filled with features `(F, T)` of each stream."""
    buffer = CacheAwareStreamingAudioBuffer(model=model, **settings)
    for utterance in utterances:
        buffer.append_processed_signal(utterance[None], stream_id=-1)
    return buffer


def steps(model: Any, utterances: Sequence[Tensor], forget: bool = False) -> Iterator[tuple[Tensor, Tensor, Caches]]:
    """Yield the output of ``cache_aware_stream_step`` for each chunk: encodings, lengths and the next caches.

    Args:
        forget: Give every chunk new caches, not the caches of the previous chunk.
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
    """Return the encodings `(D, T)` of each stream, joined from its chunks."""
    outputs = [(encoded, lengths) for encoded, lengths, _ in steps(model, utterances, forget)]
    return [torch.cat([x[i, :, : n[i]] for x, n in outputs], dim=1) for i in range(len(utterances))]


def offline(encoder: torch.nn.Module, utterances: Sequence[Tensor]) -> list[Tensor]:
    """Return the encodings `(D, T)` of each whole utterance. All utterances are in one batch."""
    lengths = torch.tensor([x.size(1) for x in utterances])
    batch = torch.nn.utils.rnn.pad_sequence([x.T for x in utterances], batch_first=True).transpose(1, 2)
    with torch.no_grad():
        encoded, encoded_lengths = encoder(audio_signal=batch, length=lengths)
    return [x[:, :n] for x, n in zip(encoded, encoded_lengths)]


def noise_features(frames: Sequence[int], channels: int, seed: int = 0) -> list[Tensor]:
    """Return random features `(F, T)` of unit variance for each number of ``frames``."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, t, generator=generator) for t in frames]


def texts(hypotheses: list[Any]) -> list[str]:
    return [getattr(hypothesis, "text", hypothesis) for hypothesis in hypotheses]


def streamed_texts(model: Any, paths: list[str], forget: bool = False) -> list[str]:
    """Stream a batch of files in the same way as NeMo's streaming program, and return the texts."""
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


def whole_texts(model: Any, sounds: Sequence[np.ndarray], decoder: str, size: Sequence[int]) -> list[str]:
    """Return the texts of whole recordings, with the attention mask of the context ``size``."""
    model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    model.encoder.set_default_att_context_size(list(size))
    texts = []
    with torch.inference_mode():
        for sound in sounds:
            samples, length = torch.as_tensor(sound)[None], torch.tensor([len(sound)])
            if len(sound) < 160:  # the sound has no feature frame
                texts.append("")
                continue
            encoded, lengths = model(input_signal=samples, input_signal_length=length)[:2]
            if decoder == "rnnt":
                found = model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
            else:
                scores = model.ctc_decoder(encoder_output=encoded)
                found = model.ctc_decoding.ctc_decoder_predictions_tensor(scores, lengths, return_hypotheses=True)
            texts.append(found[0].text)
    return texts
