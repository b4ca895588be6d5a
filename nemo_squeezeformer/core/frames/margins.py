"""The zero padding of convolutions with stride 2, and the number of output frames and channels."""

from __future__ import annotations

from typing import Any, NamedTuple


class Margins(NamedTuple):
    """The zero padding (before, after) of each strided convolution, in time and in frequency.

    If ``endless`` is True, the zero padding is unlimited: the input is followed by unlimited zeros, and intermediate
    results are not masked.
    """

    time: tuple[int, int]
    frequency: tuple[int, int]
    endless: bool = False

    def frames(self, n: Any, stages: int = 1) -> Any:
        """Return the number of frames after ``stages`` convolutions of kernel size 3 and stride 2 on ``n`` frames."""
        for _ in range(stages):
            n = n // 2 + 1 if self.endless else (n + sum(self.time) - 1) // 2
        return n

    def widths(self, n: int, stages: int) -> list[int]:
        """Return ``n`` feature channels, followed by the number of channels after each of ``stages`` convolutions."""
        widths = [n]
        for _ in range(stages):
            widths.append((widths[-1] + sum(self.frequency) - 1) // 2)
        return widths


CENTRED = Margins(time=(1, 1), frequency=(1, 1))
STREAMED = Margins(time=(2, 0), frequency=(1, 1))
# The zero padding of NeMo's causal_downsampling. If n is even, n frames become n / 2 + 1 frames.
CAUSAL = Margins(time=(2, 1), frequency=(2, 1))
# The zero padding of the authors' network. If n is even, n frames become n / 2 + 1 frames.
ENDLESS = Margins(time=(0, 0), frequency=(0, 1), endless=True)
