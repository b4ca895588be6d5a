"""Audio into the slots of ``Streams``, as fast as it plays or as the machine can, and their text out as it comes."""

from __future__ import annotations

import contextlib
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks, Samples
from nemo_squeezeformer.transcription.live.streams import Streams


@dataclass(frozen=True)
class Heard:
    """What has been said in the first ``seconds`` of the audio number ``index``."""

    index: int
    seconds: float
    text: str
    final: bool


@dataclass
class _Playing:
    """The audio in one slot."""

    index: int
    blocks: AudioBlocks
    begun: float
    heard: int = 0  # samples
    text: str = ""
    next: Samples | None = None  # what its next chunk still lacks


@dataclass
class Timing:
    """Seconds, by step."""

    compute: array[float] = field(default_factory=lambda: array("d"))
    delay: array[float] = field(default_factory=lambda: array("d"))  # from a chunk's last sample to its text


class Player:
    """Plays audio number 0 to ``count`` - 1, which ``blocks`` opens; a slot that falls free takes the next.

    ``real_time``: a sample is there only once the time has passed that it takes to play all until then.
    """

    def __init__(self, streams: Streams, blocks: Callable[[int], AudioBlocks], count: int, rate: int, real_time: bool):
        self.streams, self.blocks, self.rate, self.real_time = streams, blocks, rate, real_time
        self.waiting = iter(range(count))
        self.playing: dict[int, _Playing] = {}  # by slot
        self.timing, self.samples = Timing(), 0

    def warm_up(self) -> None:
        """A second of silence in each slot, so that no stream's first chunk waits for what PyTorch does only once."""
        for slot in range(self.streams.slots):
            self.streams.open(slot)
            self.streams.push(slot, torch.zeros(self.rate))
            self.streams.end(slot)
        while self.streams.step(range(self.streams.slots)):
            pass

    def play(self) -> Iterator[list[Heard]]:
        """What was heard, step by step, until all is; goes on after an interruption if it is called again."""
        while self._fill():
            slots, due = self._wait()
            with _deferred() as pressed:
                heard = self._round(slots, due)
            yield heard
            if pressed:
                raise KeyboardInterrupt

    def stop(self) -> None:
        """No more audio comes; what there is ends where it has been read to."""
        self.waiting, self.real_time = iter(()), False
        for playing in self.playing.values():
            playing.blocks.stop()

    def _fill(self) -> bool:
        for slot in range(self.streams.slots):
            if slot not in self.playing and (index := next(self.waiting, None)) is not None:
                self.streams.open(slot)
                self.playing[slot] = _Playing(index, self.blocks(index), time.perf_counter())
        return bool(self.playing)

    def _wait(self) -> tuple[list[int], dict[int, float]]:
        """Until the next chunk of a stream has been played: which slots have one, and since when."""
        for slot, playing in self.playing.items():
            if playing.next is None:
                playing.next = playing.blocks.read(self.streams.missing(slot))
        due = {slot: self._due(playing) for slot, playing in self.playing.items()}
        time.sleep(max(min(due.values()) - time.perf_counter(), 0))
        now = time.perf_counter()
        return sorted(slot for slot in due if due[slot] <= now), due

    def _round(self, slots: list[int], due: dict[int, float]) -> list[Heard]:
        """A step of these slots."""
        for slot in slots:
            self._push(slot)
        start = time.perf_counter()
        moved = self.streams.step(slots)
        end = time.perf_counter()
        if moved:
            self.timing.compute.append(end - start)
            if self.real_time:
                self.timing.delay.extend(end - due[slot] for slot in moved)
        return [heard for slot in slots for heard in self._heard(slot)]

    def _due(self, playing: _Playing) -> float:
        if not self.real_time or playing.next is None:
            return 0.0
        return playing.begun + (playing.heard + len(playing.next)) / self.rate

    def _push(self, slot: int) -> None:
        playing, lacking = self.playing[slot], self.streams.missing(slot)
        samples = np.zeros(0, np.float32) if playing.next is None else playing.next
        self.streams.push(slot, torch.from_numpy(samples))
        if len(samples) < lacking:
            self.streams.end(slot)
        playing.heard, playing.next = playing.heard + len(samples), None
        self.samples += len(samples)

    def _heard(self, slot: int) -> Iterator[Heard]:
        playing, text, done = self.playing[slot], self.streams.text(slot), self.streams.done(slot)
        if done or text != playing.text:
            yield Heard(playing.index, playing.heard / self.rate, text, done)
        playing.text = text
        if done:
            playing.blocks.close()
            del self.playing[slot]


@contextlib.contextmanager
def _deferred() -> Iterator[list[int]]:
    """Holds Ctrl-C back, and lists it: half a step would leave a batch of streams without a text to end with."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
