"""The measurements of the benchmark of a device."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.speed.device_encoders import Network


@dataclass(frozen=True)
class Task:
    """A kind of call that is measured for all encoders: ``training``, ``inference`` or ``stream``."""

    kind: str
    batch: int
    seconds: int = 0  # length of the longest utterance; 0 for a step of a stream

    @property
    def shown(self) -> str:
        what = {"training": "training step", "inference": "inference", "stream": "step of a stream of 480 ms"}
        length = f" x {self.seconds} s" if self.seconds else ""
        return f"{what[self.kind]}, {self.batch}{length}"

    def frames(self, network: Network) -> int:
        """Return the number of feature frames of a call."""
        return 100 * self.seconds or network.chunk


@dataclass
class Results:
    """The measurements: quartiles in milliseconds, memory in MiB and GFLOPs, by task and encoder."""

    device: str
    peak: float  # GFLOP/s of the largest matrix product in bfloat16
    ms: dict[Task, dict[Network, list[float]]] = field(default_factory=dict)
    memory: dict[Task, dict[Network, float]] = field(default_factory=dict)
    gflops: dict[Task, dict[Network, float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
