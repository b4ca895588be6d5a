"""A person who speaks into the page: the audio that waits for the model, and the messages to the person."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nemo_squeezeformer.transcription.live.resampler import Resampler, Samples


@dataclass(frozen=True)
class Message:
    """A message to a speaker.

    Attributes:
        kind: ``wait`` (all slots are taken), ``begin`` (the speaker has a slot), ``text`` (a chunk has been processed),
            ``final`` (the text is complete), ``note`` (the server ends the captions, and ``final`` follows) or
            ``error`` (the captions have ended because of a problem).
        text: for ``text`` and ``final``, the whole text so far. For ``note``, the reason. For ``error``, the problem.
        seconds: for ``text`` and ``final``, the length of the audio that has been processed.
        place: for ``wait``, the place in the line, from 1.
    """

    kind: str
    text: str = ""
    seconds: float = 0.0
    place: int = 0


class Speaker:
    """The audio of one microphone on its way to the model.

    The thread of the page calls ``hear``, ``end`` and ``leave``. The thread of the model uses the other methods and
    attributes, and holds the lock of ``changed``.

    Args:
        source_rate: sample rate of the microphone in Hz.
        rate: sample rate of the model in Hz.
        tell: receives the messages. The thread of the model also calls it, so that it must return at once.
        changed: is notified when the model can process audio of this speaker, and when the speaker leaves.

    Attributes:
        begun: True if the stream of the speaker has been opened.
        needed: number of samples that complete the next chunk.
        taken: number of samples that the model has received.
        ended: True if no more audio will be heard.
        left: True if nobody waits for the text any more.
    """

    def __init__(self, source_rate: int, rate: int, tell: Callable[[Message], None], changed: threading.Condition):
        self.source_rate, self.rate, self.tell, self.changed = source_rate, rate, tell, changed
        self.resampled = Resampler(source_rate, rate)
        self.rest = np.zeros(0, np.float32)  # (T,), the samples that the model has not received
        self.begun = self.ended = self.left = False
        self.needed = self.taken = 0

    def hear(self, samples: Samples) -> None:
        """Add samples (T,) at the sample rate of the microphone. Samples after the end of the audio are left out."""
        if not self.ended:  # the resampler refuses samples after its last block
            self._add(self.resampled(samples), last=False)

    def end(self) -> None:
        """Mark the end of the audio. The message ``final`` follows."""
        if not self.ended:
            self._add(self.resampled(np.zeros(0, np.float32), last=True), last=True)

    def leave(self) -> None:
        """Give up the slot or the place in the line. No message follows."""
        with self.changed:
            self.left = True
            self.changed.notify()

    @property
    def behind(self) -> float:
        """The seconds of audio that the model has not received."""
        return len(self.rest) / self.rate

    @property
    def ready(self) -> bool:
        """True if the model can process the next chunk, or can begin or end the stream."""
        return not self.begun or self.ended or len(self.rest) >= self.needed

    def take(self) -> Samples:
        """Return the samples (T,) of the next chunk. T is ``needed``, or less at the end of the audio."""
        samples, self.rest = self.rest[: self.needed], self.rest[self.needed :]
        self.taken += len(samples)
        return samples

    def _add(self, samples: Samples, last: bool) -> None:
        with self.changed:
            self.rest, self.ended = np.concatenate([self.rest, samples]), last
            if self.ready:
                self.changed.notify()
