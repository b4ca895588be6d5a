"""The two networks that are called Squeezeformer: NeMo's network and the authors' own network."""

from __future__ import annotations

from typing import NamedTuple

from .frames.margins import CENTRED, ENDLESS, Margins


class Variant(NamedTuple):
    """The settings in which the two networks differ. The names and shapes in the two state dicts are equal."""

    margins: Margins  # zero padding of the subsampling convolutions
    reduction_left: int  # number of input frames before frame 2t that output frame t of the reduction layer sees
    eps: float  # epsilon of layer norms and batch norms
    momentum: float  # momentum of batch norms, in PyTorch's definition


VARIANTS = {
    "nemo": Variant(CENTRED, reduction_left=3, eps=1e-5, momentum=0.1),
    # The epsilon is the default of Keras. The momentum is 0.985 in the definition of Keras, 1 - 0.985 in PyTorch's.
    "original": Variant(ENDLESS, reduction_left=0, eps=1e-3, momentum=0.015),
}


def choose_variant(name: str, subsampling: str | None, factor: int, **streams: bool) -> Variant:
    """Return the variant called ``name``.

    Args:
        name: ``nemo`` or ``original``.
        subsampling: ``subsampling`` of the encoder.
        factor: ``subsampling_factor`` of the encoder.
        **streams: Settings that make the encoder causal, by name. ``original`` refuses a setting that is True.

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
