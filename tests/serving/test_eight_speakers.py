"""Eight people who speak at once at a latency of 480 ms."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("nemo.collections.asr")

from benchmarks.serving.speakers import Speakers
from nemo_squeezeformer.serving.captions import Captions
from nemo_squeezeformer.transcription.live.streams import Streams
from tests.samples.speech import RATE
from tests.samples.streams import LATENCIES

SECONDS, PEOPLE = 7.0, 8


@pytest.mark.slow
def test_eight_people_who_speak_at_once_get_each_chunk_in_time_and_the_ninth_is_told_to_wait(serve, streaming_hybrid):
    streaming_hybrid.encoder.set_default_att_context_size(LATENCIES[480])
    streaming_hybrid.encoder.setup_streaming_params()
    captions = Captions(Streams(streaming_hybrid, PEOPLE), RATE, pytest.fail)
    captions.start()
    speakers = Speakers(serve(captions=captions).address, 48_000, session=0.0)

    async def speak() -> str:
        people = [asyncio.create_task(speakers.speak(number, SECONDS)) for number in range(PEOPLE)]
        await asyncio.sleep(2.0)
        message = await speakers.ask_for_a_place()
        await asyncio.gather(*people)
        return message

    assert asyncio.run(speak()) == "`wait`, place 1"
    delays = np.array([delay.seconds for delay in speakers.delays])
    assert len(delays) >= PEOPLE * (SECONDS - 1.5) / 0.48
    # On a busy machine, a step can wait for a processor. A server that falls behind has large delays in most chunks.
    assert np.median(delays[len(delays) // 2 :]) < 0.48
    captions.stop()
