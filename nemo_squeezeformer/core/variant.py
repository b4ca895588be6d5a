"""The two networks of one structure that are called Squeezeformer: NeMo's and the authors' own."""

from __future__ import annotations

from typing import NamedTuple

from .frames.margins import CENTRED, ENDLESS, Margins


class Variant(NamedTuple):
    """What the same weights mean in each. Names and shapes in the state dict are alike."""

    margins: Margins  # of the subsampling
    reduction_left: int  # frames before its own that the time reduction sees
    eps: float  # of layer and batch norms
    momentum: float  # of batch norms, in PyTorch's sense


VARIANTS = {
    "nemo": Variant(CENTRED, reduction_left=3, eps=1e-5, momentum=0.1),
    "original": Variant(ENDLESS, reduction_left=0, eps=1e-3, momentum=0.015),  # Keras' defaults, and 1 - 0.985
}


def choose_variant(name: str, subsampling: str | None, factor: int, **streams: bool) -> Variant:
    """The variant called ``name``.

    Raises:
        ValueError: for an unknown name, or where ``original`` comes with what the authors' network is not:
            another subsampling, or settings of ``streams`` that see nothing ahead.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant={name!r}: expected one of {', '.join(map(repr, VARIANTS))}")
    if name == "original":
        if subsampling not in ("dw_striding", "striding") or factor == 1:
            raise ValueError(
                f"variant='original' with subsampling={subsampling!r}, subsampling_factor={factor}: the authors' "
                "network subsamples by convolutions; set subsampling='dw_striding', subsampling_factor=4"
            )
        for setting, on in streams.items():
            if on:
                raise ValueError(
                    f"variant='original' with {setting}=True: the authors' subsampling and time reduction see what "
                    "follows, and do not stream; train with variant='nemo' to stream"
                )
    return VARIANTS[name]
