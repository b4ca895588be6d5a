"""Live captions of several speakers: their texts, their slots, the line, and errors of the model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import soxr

pytest.importorskip("nemo.collections.asr")

from nemo_squeezeformer.serving import captions as module
from nemo_squeezeformer.serving.captions import Captions
from nemo_squeezeformer.serving.speaker import Message, Speaker
from nemo_squeezeformer.transcription.live.streams import Streams
from tests.samples.speech import RATE, noise
from tests.samples.streams import LATENCIES, whole_texts

SLOTS = 3


class Person:
    """A speaker, and the messages that the speaker has received."""

    def __init__(self, captions: Captions, rate: int = RATE):
        self.messages: queue.Queue[Message] = queue.Queue()
        self.received: list[Message] = []
        self.speaker: Speaker = captions.join(rate, self.messages.put)

    def wait_for(self, kind: str) -> Message:
        """Return the next message of this kind. It must come within some seconds."""
        while True:
            self.received.append(self.messages.get(timeout=20))
            if self.received[-1].kind == kind:
                return self.received[-1]

    def says(self, sound: np.ndarray, piece: int = 1700) -> str:
        """Let the model hear a whole recording, and return its text."""
        for at in range(0, len(sound), piece):
            self.speaker.hear(sound[at : at + piece])
        self.speaker.end()
        return self.wait_for("final").text


def until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until a condition is true, and return the seconds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition is not met"
        time.sleep(0.01)
    return time.monotonic() - start


@pytest.fixture(scope="module")
def model(streaming_hybrid):
    streaming_hybrid.encoder.set_default_att_context_size(LATENCIES[160])
    return streaming_hybrid


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def captions(model, reports) -> Iterator[Captions]:
    made = Captions(Streams(model, SLOTS), RATE, reports.append)
    made.start()
    yield made
    made.stop()
    assert not made.thread.is_alive()


def test_speakers_who_speak_at_once_get_the_texts_of_their_recordings(model, captions):
    sounds = [noise(seconds, number) for number, seconds in enumerate([1.3, 0.4, 2.1, 0.005, 0.9, 1.7])]
    texts: dict[int, str] = {}

    def speak(number: int) -> None:
        person = Person(captions)
        person.wait_for("begin")
        texts[number] = person.says(sounds[number], piece=(160, 1601, 7000)[number % 3])

    threads = [threading.Thread(target=speak, args=[number]) for number in range(len(sounds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert captions.counts() == {"slots": SLOTS, "speaking": 0, "waiting": 0}
    expected = whole_texts(model, sounds, "rnnt", LATENCIES[160])
    assert [texts[number] for number in range(len(sounds))] == expected and len(set(expected)) == len(sounds)


def test_the_text_of_a_microphone_with_another_rate_is_the_text_of_the_resampled_recording(model, captions):
    sound = soxr.resample(noise(1.5, 7), RATE, 44_100, quality="HQ")
    text = Person(captions, 44_100).says(sound, piece=2048)
    assert [text] == whole_texts(model, [soxr.resample(sound, 44_100, RATE, quality="HQ")], "rnnt", LATENCIES[160])


def test_texts_grow_with_the_audio_and_each_chunk_gives_a_message(captions):
    person = Person(captions)
    person.says(noise(2.0, 1))
    texts = [message for message in person.received if message.kind in ("text", "final")]
    assert all(after.text.startswith(before.text) for before, after in zip(texts, texts[1:]))
    seconds = [message.seconds for message in texts]
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(2.0)
    assert np.diff(seconds[:-1]) == pytest.approx(0.16)


def test_a_speaker_waits_until_a_slot_is_free_and_does_not_hear_the_speaker_before(model, captions):
    first = [Person(captions) for _ in range(SLOTS)]
    late, later = Person(captions), Person(captions)
    assert late.wait_for("wait").place == 1 and later.wait_for("wait").place == 2
    assert captions.counts() == {"slots": SLOTS, "speaking": SLOTS, "waiting": 2}
    first[1].speaker.hear(noise(0.7, 3))
    first[1].wait_for("text")
    first[1].speaker.leave()
    late.wait_for("begin")
    assert later.wait_for("wait").place == 1
    assert [late.says(noise(1.0, 4))] == whole_texts(model, [noise(1.0, 4)], "rnnt", LATENCIES[160])
    later.wait_for("begin")


def test_a_speaker_who_leaves_frees_the_slot_or_the_place_in_the_line_at_once(captions):
    people = [Person(captions) for _ in range(SLOTS + 2)]
    people[-2].speaker.leave()
    assert until(lambda: captions.counts()["waiting"] == 1) < 2
    for person in people[:SLOTS]:
        person.speaker.hear(noise(0.3, 1))
        person.speaker.leave()
    people[-1].wait_for("begin")
    assert until(lambda: captions.counts() == {"slots": SLOTS, "speaking": 1, "waiting": 0}) < 2
    assert all(message.kind != "begin" for message in people[-2].messages.queue)


def test_the_line_has_an_end(captions, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 2)
    people = [Person(captions) for _ in range(SLOTS + 2)]
    with pytest.raises(OverflowError, match="2 other speakers already wait"):
        Person(captions)
    people[0].speaker.leave()
    people[SLOTS].wait_for("begin")
    assert Person(captions).wait_for("wait").place == 2


def test_chunks_that_are_complete_at_the_same_time_are_one_batch(captions, monkeypatch):
    step, sizes, go_on, busy = captions.streams.step, [], threading.Event(), threading.Event()

    def slow_step(slots):
        busy.set()
        assert go_on.wait(10)
        moved = step(slots)
        sizes.append(len(moved))
        return moved

    people = [Person(captions) for _ in range(SLOTS)]
    until(lambda: all(person.speaker.needed for person in people))
    monkeypatch.setattr(captions.streams, "step", slow_step)
    for person in people:  # the first chunk is being processed while the others become complete
        person.speaker.hear(noise(0.17, 1))
        assert busy.wait(10)
    go_on.set()
    for person in people:
        person.wait_for("text")
    assert sizes == [1, SLOTS - 1]


def test_an_error_of_the_model_ends_the_captions_with_its_text_and_the_next_speaker_can_speak(
    model, captions, reports, monkeypatch
):
    person, silent = Person(captions), Person(captions)
    until(lambda: bool(person.speaker.needed and silent.speaker.needed))
    with monkeypatch.context() as patch:
        patch.setattr(model.encoder, "cache_aware_stream_step", lambda **_: 1 / 0)
        person.speaker.hear(noise(0.5, 1))
        assert person.wait_for("error").text == "The model has failed: ZeroDivisionError: division by zero"
        until(lambda: captions.counts()["speaking"] == 1)
    assert reports == [
        "an error of the model has ended the captions of 1 speaker(s): ZeroDivisionError: division by zero"
    ]
    sound = noise(1.0, 4)
    expected = whole_texts(model, [sound], "rnnt", LATENCIES[160])
    assert [silent.says(sound)] == [Person(captions).says(sound)] == expected


def test_audio_after_the_end_is_not_heard(model, captions):
    person = Person(captions)
    person.wait_for("begin")
    sound = noise(0.8, 9)
    person.speaker.hear(sound)
    person.speaker.end()
    person.speaker.hear(noise(0.8, 10))
    person.speaker.end()
    assert [person.wait_for("final").text] == whole_texts(model, [sound], "rnnt", LATENCIES[160])
