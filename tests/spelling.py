"""Tiny models whose random weights spell something else in nearly each frame of given audio: texts that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from tests.asr_models import asr_model

RATE = 16000


def write_noises(folder: Path, seconds: Sequence[float] = (2.3, 1.1, 0.31, 1.77)) -> list[str]:
    """Wav files of noise that is now louder, now softer, one of each length in ``seconds``."""
    rng, paths = np.random.default_rng(0), []
    for i, duration in enumerate(seconds):
        t = np.arange(int(RATE * duration))
        loudness = 10.0 ** (-1.5 + np.sin(t / 900.0 + i))
        paths.append(str(folder / f"noise_{i}.wav"))
        soundfile.write(paths[-1], loudness * 0.2 * rng.standard_normal(len(t)), RATE)
    return paths


def spelling_model(kind: str, paths: Sequence[str], units: str = "char", **changes: Any) -> Any:
    """A ``kind`` of model (``asr_model``) whose decoders find all tokens alike likely over the audio of ``paths``."""
    model = asr_model(kind, units, **changes)
    with torch.no_grad():
        encodings = _encodings(model, paths)  # (N, D)
        if kind != "transducer":
            _spread((model.ctc_decoder if kind == "hybrid" else model.decoder).decoder_layers[0], encodings, 4.0)
        if kind != "ctc":
            _spread(model.joint.enc, encodings, 1.0)
            _spread_joint(model, encodings)
    return model


def _encodings(model: Any, paths: Sequence[str]) -> Tensor:
    frames = []
    for path in paths:
        audio = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        features, lengths = model.preprocessor(input_signal=audio, length=torch.tensor([audio.size(1)]))
        encoded, lengths = model.encoder(audio_signal=features, length=lengths)
        frames.append(encoded[0, :, : lengths[0]].T)
    return torch.cat(frames)


def _spread(layer: torch.nn.Module, x: Tensor, scale: float) -> None:
    """Makes what ``layer`` gives for rows (N, D) zero on average, with a deviation of ``scale``."""
    weight = layer.weight.view(layer.weight.size(0), -1)
    y = x @ weight.T
    factor = scale / y.std(dim=0)
    weight.mul_(factor[:, None])
    layer.bias.copy_(-y.mean(dim=0) * factor)


def _spread_joint(model: Any, encodings: Tensor) -> None:
    """Makes all tokens alike likely whatever came before, and the blank as likely as all others together."""
    joint, tokens = model.joint, torch.arange(len(model.joint.vocabulary))[:, None]
    states, _ = model.decoder.predict(tokens, add_sos=False)  # (V, 1, H)
    last = joint.joint_net[-1]

    def logits() -> Tensor:
        hidden = joint.joint_net[:-1](joint.enc(encodings)[:, None] + joint.pred(states[:, 0])[None])
        return last(hidden).flatten(0, 1)

    last.weight.mul_(4.0 / logits().std(dim=0)[:, None])
    last.bias.sub_(logits().mean(dim=0))
    y = logits()
    leads = (y[:, :-1].max(dim=1).values - y[:, -1]).sort().values
    middle = len(leads) // 2
    last.bias[-1] += leads[middle - 1 : middle + 1].mean()  # between two: the median itself would make a tie
