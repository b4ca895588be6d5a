"""The player, which pushes audio into ``Streams`` in real time or at full speed and yields the text of each stream."""

from __future__ import annotations

import contextlib
import signal
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from nemo_squeezeformer.transcription.live.audio_blocks import AudioBlocks, Samples
from nemo_squeezeformer.transcription.live.stream_times import Row, StreamTimes

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass(frozen=True)
class Heard:
    """The text of the first ``seconds`` of audio number ``index``. ``final`` is True if the audio has ended.

    ``problem`` is the reason why the audio has ended early, or empty. ``rows`` has the words and utterances that are
    complete since the last ``Heard``. ``timestamps`` has all words and utterances if ``final`` is True.
    ``StreamTimes.rows`` describes a row.
    """

    index: int
    seconds: float
    text: str
    final: bool
    problem: str = ""
    rows: list[Row] = field(default_factory=list)
    timestamps: dict[str, list[Row]] = field(default_factory=dict)


class StreamsLike(Protocol):
    """The part of ``Streams`` that the player needs. ``Streams`` describes the members."""

    slots: int
    times: StreamTimes | None

    def open(self, slot: int) -> None: ...

    def push(self, slot: int, samples: torch.Tensor) -> None: ...

    def end(self, slot: int) -> None: ...

    def missing(self, slot: int) -> int: ...

    def done(self, slot: int) -> bool: ...

    def text(self, slot: int) -> str: ...

    def step(self, slots: Sequence[int]) -> list[int]: ...


@dataclass
class _Playing:
    """The audio in one slot."""

    index: int
    blocks: AudioBlocks
    begun: float  # time.perf_counter() at the start of the audio
    heard: int = 0  # number of samples pushed
    text: str = ""
    next: Samples | None = None  # the samples that complete the next chunk
    rows: dict[str, int] = field(default_factory=dict)  # for each kind, the number of rows that have been yielded


@dataclass
class Timing:
    """Times in seconds: ``compute`` has one value for each step, and ``delay`` has one value for each chunk."""

    compute: array[float] = field(default_factory=lambda: array("d"))
    delay: array[float] = field(default_factory=lambda: array("d"))  # from the last sample of a chunk to its text


class Player:
    """A player of several audio sources. When the audio in a slot has ended, the slot gets the next source.

    Args:
        streams: the streams to push the audio into: ``Streams`` or ``WindowStreams``.
        blocks: a function that opens audio source ``i``.
        sources: the numbers of the audio sources, in the order in which they begin.
        rate: sample rate in Hz.
        real_time: if True, push each sample only at the time at which the sample would be played.
    """

    def __init__(
        self,
        streams: StreamsLike,
        blocks: Callable[[int], AudioBlocks],
        sources: Iterable[int],
        rate: int,
        real_time: bool,
    ):
        self.streams, self.blocks, self.rate, self.real_time = streams, blocks, rate, real_time
        self.waiting = iter(sources)
        self.playing: dict[int, _Playing] = {}  # by slot
        self.timing, self.samples = Timing(), 0

    def warm_up(self) -> None:
        """Stream one second of silence through each slot, see the function ``warm_up``."""
        warm_up(self.streams, self.rate)

    def play(self) -> Iterator[list[Heard]]:
        """Yield the new texts of each step until all audio has ended.

        A signal, for example of Ctrl-C, takes effect between steps. Call ``play`` again to continue after Ctrl-C.
        """
        while self._fill():
            slots, due = self._wait()
            with _deferred() as received:
                heard = self._round(slots, due)
            yield heard
            if received:
                signal.raise_signal(received[0])

    def stop(self) -> None:
        """Open no more audio, and end the open audio after the samples that have been read."""
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
        """Wait until the next chunk of a stream is complete.

        Returns:
            A list of the slots with a complete chunk, and for every slot the time at which the next chunk is complete.
        """
        for slot, playing in self.playing.items():
            if playing.next is None:
                playing.next = playing.blocks.read(self.streams.missing(slot))
        due = {slot: self._due(playing) for slot, playing in self.playing.items()}
        time.sleep(max(min(due.values()) - time.perf_counter(), 0))
        now = time.perf_counter()
        return sorted(slot for slot in due if due[slot] <= now), due

    def _round(self, slots: list[int], due: dict[int, float]) -> list[Heard]:
        """Push the audio of ``slots``, run one step, and return the new texts of ``slots``."""
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
        rows = self._rows(slot, playing, done)
        if done or rows or text != playing.text:
            problem = playing.blocks.problem if done else ""
            times = self.streams.times
            every = {kind: times.rows(slot, kind) for kind in times.kinds} if done and times is not None else {}
            yield Heard(playing.index, playing.heard / self.rate, text, done, problem, rows, every)
        playing.text = text
        if done:
            playing.blocks.close()
            del self.playing[slot]

    def _rows(self, slot: int, playing: _Playing, done: bool) -> list[Row]:
        """Return the words and utterances that are complete since the last call, in the order of their ends."""
        times, rows = self.streams.times, list[Row]()
        if times is None:
            return rows
        if done:
            times.finish(slot)
        for kind in times.kinds:
            new = times.rows(slot, kind, playing.rows.get(kind, 0))
            playing.rows[kind] = playing.rows.get(kind, 0) + len(new)
            rows += new
        return sorted(rows, key=lambda row: row["end"])


def warm_up(streams: StreamsLike, rate: int) -> None:
    """Stream one second of silence with the sample rate ``rate`` through each slot.

    PyTorch initializes itself in the first steps. Without a warm-up, the first chunk of a stream waits for this
    initialization.
    """
    for slot in range(streams.slots):
        streams.open(slot)
        streams.push(slot, torch.zeros(rate))
        streams.end(slot)
    while streams.step(range(streams.slots)):
        pass


@contextlib.contextmanager
def _deferred() -> Iterator[list[int]]:
    """Defer the signals that end a process, and yield a list to which each signal adds its number.

    An interruption inside a step would leave the streams of the batch in an incomplete state, without a final text.
    """
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in ENDING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
