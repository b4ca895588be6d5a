"""Streams that begin and end independently give the text of the whole recording, at a constant cost."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nemo.collections.asr")
import torch

from nemo_squeezeformer.transcription.live.streamed_text import KEPT, StreamedText
from nemo_squeezeformer.transcription.live.streams import Streams
from tests.samples.adapters import adapted_model
from tests.samples.asr_models import asr_model
from tests.samples.speech import RATE, SECONDS, noise
from tests.samples.streams import LATENCIES, whole_texts


@pytest.fixture(scope="module")
def model(streaming_hybrid):
    return streaming_hybrid


def streamed(model, sounds, slots: int, seed: int = 0, forget: int | None = None) -> list[str]:
    """Return the texts of ``sounds`` from ``slots`` streams at once, pushed in pieces of random sizes.

    ``forget`` is the number of a step at which the caches are cleared.
    """
    draw, streams = random.Random(seed), Streams(model, slots)
    waiting, texts, playing = list(range(len(sounds))), {}, {}
    for step in range(10_000):
        for slot in set(range(slots)) - set(playing):
            if waiting and draw.random() < 0.7:
                streams.open(slot)
                playing[slot] = [waiting.pop(0), 0]
        for slot, (index, at) in playing.items():
            piece = draw.choice([1, 159, 700, 3001])
            streams.push(slot, torch.from_numpy(sounds[index][at : at + piece]))
            playing[slot][1] += piece
            if at + piece >= len(sounds[index]):
                streams.end(slot)
        if step == forget:
            streams.caches = model.encoder.get_initial_cache_state(slots)
        streams.step(sorted(playing))
        for slot in [slot for slot in playing if streams.done(slot)]:
            texts[playing.pop(slot)[0]] = streams.text(slot)
        if not playing and not waiting:
            return [texts[index] for index in range(len(sounds))]
    raise AssertionError("the streams do not end")


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@pytest.mark.parametrize("size", LATENCIES.values(), ids=[f"{ms}ms" for ms in LATENCIES])
def test_streams_that_begin_and_end_at_different_times_give_the_text_of_the_whole_recording(model, decoder, size):
    sounds = [noise(seconds, number) for number, seconds in enumerate(SECONDS)]
    expected = whole_texts(model, sounds, decoder, size)
    assert len(set(expected)) == len(expected) and expected[2] == ""
    assert streamed(model, sounds, slots=2) == expected
    assert streamed(model, sounds, slots=5) == expected
    assert streamed(model, sounds, slots=1, forget=35) != expected  # control


def test_a_cache_aware_conformer_of_nemo_streams_too():
    from nemo.collections.asr.modules import ConformerEncoder

    conformer = asr_model("ctc", preprocessor={"normalize": "NA"}, encoder={"d_model": 32})
    conformer.encoder = ConformerEncoder(
        feat_in=80, n_layers=2, d_model=32, n_heads=2, subsampling="dw_striding", subsampling_factor=4,
        subsampling_conv_channels=16, causal_downsampling=True, att_context_size=[[24, 5], [24, 0]],
        att_context_style="chunked_limited", conv_context_size="causal", conv_norm_type="layer_norm",
    ).eval()  # fmt: skip
    sounds = [torch.from_numpy(noise(seconds, 3)) for seconds in (1.3, 0.7)]
    for size in ([24, 5], [24, 0]):
        conformer.encoder.set_default_att_context_size(size)
        streams = Streams(conformer, 2)
        for slot, sound in enumerate(sounds):
            with torch.inference_mode():
                scores, lengths, _ = conformer(input_signal=sound[None], input_signal_length=torch.tensor([len(sound)]))
            best = scores[0, : lengths[0]].argmax(-1).tolist()
            kept = [token for before, token in zip([-1, *best], best) if token != before and token < scores.size(2) - 1]
            for piece in sound.split(500):
                streams.push(slot, piece)
                streams.step([slot])
            streams.end(slot)
            while streams.step([slot]):
                pass
            assert streams.text(slot) == conformer.decoding.decode_tokens_to_str_with_strip_punctuation(kept)


def test_a_context_without_a_limit_to_the_right_is_refused():
    from nemo.collections.asr.modules import ConformerEncoder

    conformer = asr_model("ctc", preprocessor={"normalize": "NA"}, encoder={"d_model": 32})
    conformer.encoder = ConformerEncoder(
        feat_in=80, n_layers=1, d_model=32, n_heads=2, causal_downsampling=True, att_context_size=[70, -1],
        conv_context_size="causal", conv_norm_type="layer_norm",
    ).eval()  # fmt: skip
    with pytest.raises(ValueError, match=r"att_context_size=\[70, -1\] has no limit to the right"):
        Streams(conformer, 1)


def test_attention_adapters_are_refused_before_the_first_chunk():
    streaming = {"streaming": True, "att_context_size": [8, 3]}
    adapted = adapted_model(preprocessor={"normalize": "NA"}, encoder=streaming | {"self_attention_model": "rel_pos"})
    with pytest.raises(ValueError, match="attention adapter 'attention' does not stream"):
        Streams(adapted, 1)
    adapted.set_enabled_adapters("attention", enabled=False)
    assert streamed(adapted, [noise(0.5)], slots=1)


def test_the_state_of_a_stream_does_not_grow(model):
    sizes = []
    for decoder in ("rnnt", "ctc"):
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
        model.encoder.set_default_att_context_size([24, 3])
        streams, sound = Streams(model, 1), torch.from_numpy(noise(22.0))
        for second, piece in enumerate(sound.split(RATE)):
            streams.push(0, piece)
            while streams.step([0]):
                pass
            if second in (5, 21):  # two seconds with the same position inside a chunk
                kept = [*streams.caches, streams.past[0], streams.features.streams[0].samples]
                sizes.append([tensor.untyped_storage().nbytes() for tensor in kept])
                assert len(streams.texts[0].tokens) <= 3 * KEPT
                if decoder == "rnnt":
                    assert len(streams.decoder.partial[0].y_sequence) == 0
        assert len(streams.text(0)) > 200
        assert sizes[-1] == sizes[-2]


def test_the_text_equals_the_text_of_all_tokens_although_few_tokens_are_kept(model):
    draw = random.Random(0)
    write = model.ctc_decoding.decode_tokens_to_str_with_strip_punctuation
    tokens = [draw.randrange(22) for _ in range(1000)]
    text, at = StreamedText(write), 0
    while at < len(tokens):
        new = draw.randint(0, 9)
        text.extend(tokens[at : at + new])
        at += new
        assert len(text.tokens) <= 2 * KEPT + 9
        assert str(text) == write(tokens[:at])
    assert str(text).count(" ") > 10


@pytest.mark.slow
def test_an_hour_costs_no_more_at_its_end_than_at_its_start(model):
    """Ten minutes of audio are sufficient to measure this."""
    model.change_decoding_strategy(decoder_type="rnnt", verbose=False)
    model.encoder.set_default_att_context_size([24, 11])
    streams, sound = Streams(model, 1), torch.from_numpy(noise(30.0))
    memory, seconds = [], []
    for _ in range(20):
        start = time.process_time()
        for piece in sound.split(4000):
            streams.push(0, piece)
            streams.step([0])
        seconds.append(time.process_time() - start)
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)
    assert memory[-1] - memory[4] < 8.0, memory  # MiB; data kept for each chunk would need many times this memory
    assert np.median(seconds[-5:]) < 1.5 * np.median(seconds[2:7]), seconds
