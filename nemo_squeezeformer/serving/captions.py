"""The thread that owns the model, and writes the captions of all speakers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from nemo_squeezeformer.serving.speaker import Message, Speaker
from nemo_squeezeformer.transcription.live.player import warm_up
from nemo_squeezeformer.transcription.live.resampler import Samples
from nemo_squeezeformer.transcription.live.streams import Streams

LONGEST_LINE = 100  # speakers who wait for a slot


class Captions:
    """The live captions of several speakers.

    A speaker gets a free slot, or waits in a line until a slot is free. The thread processes the complete chunks of all
    speakers in one batch. The chunks that become complete during this time are the next batch. Batches are therefore
    larger when the model is busy. A complete chunk never waits until the chunk of another speaker is complete.

    Args:
        streams: the streams of the model. After ``start``, only the thread uses them.
        rate: sample rate of the model in Hz.
        report: receives one line about each error of the model.
    """

    def __init__(self, streams: Streams, rate: int, report: Callable[[str], None]):
        self.streams, self.rate, self.report = streams, rate, report
        self.changed = threading.Condition()
        self.speaking: dict[int, Speaker] = {}  # by slot
        self.line: list[Speaker] = []
        self.stopped = False
        self.thread = threading.Thread(target=self._run, name="captions", daemon=True)

    def start(self) -> None:
        """Prepare PyTorch for the first chunk, and start the thread."""
        warm_up(self.streams, self.rate)
        self.thread.start()

    def stop(self) -> None:
        """Stop the thread after its current batch."""
        with self.changed:
            self.stopped = True
            self.changed.notify()
        self.thread.join()

    def join(self, source_rate: int, tell: Callable[[Message], None]) -> Speaker:
        """Return a new speaker, who receives the message ``begin``, or ``wait`` and later ``begin``.

        Args:
            source_rate: sample rate of the microphone in Hz.
            tell: receives the messages.

        Raises:
            OverflowError: the line is too long.
        """
        speaker = Speaker(source_rate, self.rate, tell, self.changed)
        with self.changed:
            if len(self.line) >= LONGEST_LINE:
                raise OverflowError(f"{LONGEST_LINE} other speakers already wait for a free place; try again later")
            self.line.append(speaker)
            self._seat()
            if self.line:
                tell(Message("wait", place=len(self.line)))
        return speaker

    def counts(self) -> dict[str, int]:
        """Return the number of slots, the number of speakers with a slot, and the number of speakers in the line."""
        with self.changed:
            return {"slots": self.streams.slots, "speaking": len(self.speaking), "waiting": len(self.line)}

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(self._is_due)
                if self.stopped:
                    return
                self._remove([speaker for speaker in (*self.speaking.values(), *self.line) if speaker.left])
                turns = {slot: speaker for slot, speaker in sorted(self.speaking.items()) if speaker.ready}
                audio = [speaker.take() for speaker in turns.values()]
            try:
                self._step(turns, audio)
            except Exception as error:  # an error of the model ends these captions, and not the page
                self._fail(list(turns.values()), error)

    def _is_due(self) -> bool:
        """Return True if the thread has work."""
        ready = any(speaker.ready for speaker in self.speaking.values())
        return self.stopped or ready or any(speaker.left for speaker in (*self.speaking.values(), *self.line))

    def _step(self, turns: dict[int, Speaker], audio: Sequence[Samples]) -> None:
        """Process the next chunk of each speaker in ``turns``, which has the speakers by slot."""
        for (slot, speaker), samples in zip(turns.items(), audio):
            if speaker.begun:
                self._push(slot, samples)
            else:
                self.streams.open(slot)
        moved = self.streams.step(list(turns))
        done = [slot for slot in turns if self.streams.done(slot)]
        for slot in {*moved, *done}:
            kind = "final" if slot in done else "text"
            turns[slot].tell(Message(kind, self.streams.text(slot), turns[slot].taken / self.rate))
        with self.changed:
            for slot, speaker in turns.items():
                speaker.begun, speaker.needed = True, self.streams.missing(slot)
            self._remove([turns[slot] for slot in done])

    def _push(self, slot: int, samples: Samples) -> None:
        lacking = self.streams.missing(slot)
        self.streams.push(slot, torch.from_numpy(samples))
        if len(samples) < lacking:
            self.streams.end(slot)

    def _fail(self, speakers: Sequence[Speaker], error: Exception) -> None:
        """Tell ``speakers`` that the model has failed, and free their slots."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.report(f"an error of the model has ended the captions of {len(speakers)} speaker(s): {reason}")
        for speaker in speakers:
            speaker.tell(Message("error", f"The model has failed: {reason}"))
        with self.changed:
            self._remove(speakers)

    def _remove(self, speakers: Sequence[Speaker]) -> None:
        """Remove speakers from their slots and from the line, and give the free slots to the line."""
        if speakers:
            self.speaking = {slot: speaker for slot, speaker in self.speaking.items() if speaker not in speakers}
            self.line = [speaker for speaker in self.line if speaker not in speakers]
            self._seat()
            for place, speaker in enumerate(self.line, start=1):
                speaker.tell(Message("wait", place=place))

    def _seat(self) -> None:
        """Give the free slots to the first speakers of the line."""
        for slot in range(self.streams.slots):
            if slot not in self.speaking and self.line:
                self.speaking[slot] = self.line.pop(0)
                self.speaking[slot].tell(Message("begin"))
                self.changed.notify()
