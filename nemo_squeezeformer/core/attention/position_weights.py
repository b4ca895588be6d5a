"""The weights of relative positions, which rotary positions do not have.

All other weights have the same names and shapes. Therefore a training with one of the two kinds of positions can start
from the weights of the other kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

NAMES = ("linear_pos.weight", "pos_bias_u", "pos_bias_v")


def take_out(weights: dict[str, Any], prefix: str) -> str | None:
    """Remove the weights of relative positions under ``prefix`` from ``weights``, and return a warning that names them.

    The result is None if there are no such weights.
    """
    found = [name for name in weights if name.startswith(prefix) and name.endswith(NAMES)]
    for name in found:
        del weights[name]
    return warning([], found)


def differences(there: Iterable[str], here: Iterable[str]) -> str | None:
    """Return a warning if only one of two encoders has relative positions, or None.

    Args:
        there: names of the weights in the file.
        here: names of the weights of the model.
    """
    old, new = ([name for name in names if name.endswith(NAMES)] for names in (there, here))
    return warning(new, old) if bool(old) != bool(new) else None


def warning(missing: Iterable[str], unexpected: Iterable[str]) -> str | None:
    """Return a warning about weights that only the new or only the old attention has, or None."""
    parts = [
        f"{len(names)} weights of attention {fate} ({', '.join(sorted({kind(name) for name in names}))})"
        for names, fate in (([*missing], "are new and untrained"), ([*unexpected], "have no place and are left out"))
        if names
    ]
    return f"other positions than before: {'; '.join(parts)}; the encoder must be trained again" if parts else None


def kind(name: str) -> str:
    """Return the name of a weight inside attention: ``layers.0.self_attn.pos_bias_u`` -> ``pos_bias_u``."""
    return name.rpartition("self_attn.")[2]
