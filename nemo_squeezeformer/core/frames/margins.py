"""The zeros around the input of convolutions of stride 2, and how many frames and channels these make."""

from __future__ import annotations

from typing import Any, NamedTuple


class Margins(NamedTuple):
    """Zeros around the input of each convolution that halves: before and after, in time and over frequency.

    ``endless``: zeros without end follow the features and nothing else is zeroed, so that convolutions after the first
    see what it makes of them.
    """

    time: tuple[int, int]
    frequency: tuple[int, int]
    endless: bool = False

    def frames(self, n: Any, stages: int = 1) -> Any:
        """How many frames so many convolutions of kernel 3 and stride 2 make of ``n`` frames."""
        for _ in range(stages):
            n = n // 2 + 1 if self.endless else (n + sum(self.time) - 1) // 2
        return n

    def widths(self, n: int, stages: int) -> list[int]:
        """``n`` feature channels, and what each of so many such convolutions makes of them."""
        widths = [n]
        for _ in range(stages):
            widths.append((widths[-1] + sum(self.frequency) - 1) // 2)
        return widths


CENTRED = Margins(time=(1, 1), frequency=(1, 1))
STREAMED = Margins(time=(2, 0), frequency=(1, 1))
CAUSAL = Margins(time=(2, 1), frequency=(2, 1))  # NeMo's causal_downsampling: a frame more, of which half is padding
ENDLESS = Margins(time=(0, 0), frequency=(0, 1), endless=True)  # the authors', who pad far: often a frame more
