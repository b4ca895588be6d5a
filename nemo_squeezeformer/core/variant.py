"""The two networks that are called Squeezeformer: NeMo's network and the authors' own network."""

from __future__ import annotations

from typing import NamedTuple

from .frames.margins import CENTRED, ENDLESS, Margins


class Variant(NamedTuple):
    """The settings in which the two networks differ. The names and shapes in their state dicts are equal."""

    margins: Margins  # zero padding of the subsampling convolutions
    reduction_left: int  # number of frames before its own that a frame of the reduction layer sees
    eps: float  # epsilon of layer and batch norms
    momentum: float  # momentum of batch norms, as PyTorch defines it


VARIANTS = {
    "nemo": Variant(CENTRED, reduction_left=3, eps=1e-5, momentum=0.1),
    "original": Variant(ENDLESS, reduction_left=0, eps=1e-3, momentum=0.015),  # Keras' default eps; 1 - Keras' 0.985
}


def choose_variant(name: str, subsampling: str | None, factor: int, **streams: bool) -> Variant:
    """Return the variant called ``name``.

    Args:
        name: ``nemo`` or ``original``.
        subsampling: ``subsampling`` of the encoder.
        factor: ``subsampling_factor`` of the encoder.
        **streams: Settings of the encoder that make it causal, by name. ``original`` refuses them.

    Raises:
        ValueError: The name is unknown, or ``original`` is combined with a subsampling without convolutions or with a
            setting of ``streams`` that is True.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant={name!r}: expected one of {', '.join(map(repr, VARIANTS))}")
    if name == "original":
        if subsampling not in ("dw_striding", "striding") or factor == 1:
            raise ValueError(
                f"variant='original' with subsampling={subsampling!r}, subsampling_factor={factor}: the authors' "
                "network has convolutional subsampling; set subsampling='dw_striding', subsampling_factor=4"
            )
        for setting, on in streams.items():
            if on:
                raise ValueError(
                    f"variant='original' with {setting}=True: the authors' subsampling and reduction layer see "
                    "later frames and do not stream; train with variant='nemo' to stream"
                )
    return VARIANTS[name]
