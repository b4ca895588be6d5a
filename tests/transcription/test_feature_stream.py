"""Features and resampled audio of a stream, computed in pieces, equal the result for the whole recording."""

from __future__ import annotations

import random

import numpy as np
import pytest
import soundfile

pytest.importorskip("nemo.collections.asr")
import torch

from nemo_squeezeformer.files import manifests
from nemo_squeezeformer.transcription.live.audio_blocks import FileBlocks
from nemo_squeezeformer.transcription.live.feature_stream import FeatureStream
from tests.samples.speech import RATE, noise


@pytest.mark.parametrize(("window", "stride"), [(0.02, 0.01), (0.025, 0.01), (0.032, 0.0125), (0.01, 0.01)])
def test_features_of_pieces_equal_the_features_of_the_whole_recording(window, stride):
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    preprocessor = AudioToMelSpectrogramPreprocessor(
        window_size=window, window_stride=stride, features=20, normalize="NA", dither=0.0
    ).eval()
    draw, slots = random.Random(0), 3
    for lengths in ([0, 1, 7001], [159, 160, 161], [399, 400, 401], [8000, 2561, 79]):
        sounds = [torch.from_numpy(noise(length / RATE + 0.1, length)[:length]) for length in lengths]
        features, at, found = FeatureStream(preprocessor, slots), [0] * slots, [[] for _ in range(slots)]
        for _ in range(10_000):
            for slot in range(slots):
                piece = draw.choice([1, 7, 160, 500, 1600])
                features.push(slot, sounds[slot][at[slot] : at[slot] + piece])
                at[slot] += piece
                if at[slot] >= lengths[slot]:
                    features.end(slot)
                assert len(features.streams[slot].samples) <= 4 * 1600 + 1024  # only the needed samples are kept
            left = [features.available(slot) - features.streams[slot].given for slot in range(slots)]
            some = [slot for slot in range(slots) if left[slot] and draw.random() < 0.8]
            if some:
                for slot, frames in zip(some, features.take(some, [draw.randint(1, left[slot]) for slot in some])):
                    found[slot].append(frames)
            if not any(left) and all(features.ended(slot) for slot in range(slots)):
                break
        for sound, frames in zip(sounds, found):
            if len(sound) == 0:
                assert not frames
                continue
            expected, count = preprocessor(input_signal=sound[None], length=torch.tensor([len(sound)]))
            joined = torch.cat(frames, dim=1) if frames else expected[0, :, :0]
            torch.testing.assert_close(joined, expected[0, :, :count], rtol=0, atol=1e-5)
            if count > 4:  # control: without the samples around them, frames at the edges of pieces differ
                apart, _ = preprocessor(input_signal=sound[None, 320:], length=torch.tensor([len(sound) - 320]))
                assert (apart[0, :, 0] - expected[0, :, round(320 / stride / RATE)]).abs().max() > 1e-3


def test_another_sample_rate_is_resampled_as_nemo_does(tmp_path):
    from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

    for rate in (8000, 22050, 48000):
        sound = noise(0.5, rate)
        soundfile.write(tmp_path / "a.wav", sound, rate, subtype="FLOAT")
        blocks, found = FileBlocks(*manifests.read_files([tmp_path / "a.wav"]), RATE, "average"), []
        while not found or len(found[-1]) == 777:
            found.append(blocks.read(777))
        expected = AudioSegment(sound, rate, target_sr=RATE).samples
        np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)
