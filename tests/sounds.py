"""Sounds whose texts differ along them, a tiny hybrid of several latencies that spells them, and its offline text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from tests.asr_models import write_tokenizer
from tests.spelling import spelling_model

RATE = 16_000
SECONDS = [0.9, 2.0, 0.005, 1.437, 1.1]  # the third is less than a feature frame
LATENCIES = {480: [24, 11], 160: [24, 3], 80: [24, 1]}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """(T,) samples of a sound that changes four times a second."""
    generator = np.random.default_rng(seed)
    tones = np.repeat(generator.uniform(100, 4000, 1 + int(4 * seconds)), RATE // 4)[: int(seconds * RATE)]
    sound = 0.3 * np.sin(2 * np.pi * np.cumsum(tones) / RATE) + 0.03 * generator.standard_normal(len(tones))
    return sound.astype(np.float32)


def streaming_hybrid(folder: Path) -> Any:
    """A hybrid with word pieces, of three latencies and offline."""
    paths = []
    for seed in (20, 21):
        paths.append(str(folder / f"{seed}.wav"))
        soundfile.write(paths[-1], noise(3.0, seed), RATE)
    encoder = {"streaming": True, "att_context_size": [*LATENCIES.values(), [-1, -1]]}
    tokenizer = write_tokenizer(folder / "tokenizer")
    return spelling_model(
        "hybrid", paths, "bpe", tokenizer=tokenizer, preprocessor={"normalize": "NA"}, encoder=encoder
    )


def whole(model: Any, sounds: Sequence[np.ndarray], decoder: str, size: Sequence[int]) -> list[str]:
    """NeMo's text of whole recordings, under the mask of ``size``."""
    model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    model.encoder.set_default_att_context_size(list(size))
    texts = []
    with torch.inference_mode():
        for sound in sounds:
            samples, length = torch.as_tensor(sound)[None], torch.tensor([len(sound)])
            if len(sound) < 160:  # no feature: nothing to decode
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
