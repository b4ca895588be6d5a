"""A check for recordings that NeMo leaves out because of their duration. NeMo's log does not name the settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.training.nemo_log import warn
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import LIMIT, SPLITS, sources_of


@dataclass
class Outside:
    """The rows that are longer than ``max_duration``, or the rows that are shorter than ``min_duration``.

    Attributes:
        rows: number of these rows.
        seconds: sum of their durations.
        most: the duration that is the farthest from the limit, in seconds.
        place: the file and the line of the row with the duration ``most``.
    """

    rows: int = 0
    seconds: float = 0.0
    most: float = 0.0
    place: str = ""

    def add(self, seconds: float, place: str, farther: bool) -> None:
        self.rows += 1
        self.seconds += seconds
        if farther or not self.place:
            self.most, self.place = seconds, place


@dataclass
class Durations:
    """The durations of the local manifests of a split, compared with ``min_duration`` and ``max_duration``."""

    rows: int = 0
    seconds: float = 0.0
    short: Outside = field(default_factory=Outside)
    long: Outside = field(default_factory=Outside)


def check(cfg: Any, say: Callable[[str], object] = warn) -> None:
    """Say how many recordings the limits of the duration leave out.

    Args:
        cfg: a composed recipe.
        say: a function that gets each warning (default: NeMo's log shows the warnings).

    Raises:
        UserError: the limits leave out all recordings of a split.
    """
    for key, name in SPLITS.items():
        section = value(cfg, f"model.{key}")
        if not isinstance(section, dict):
            continue
        shortest, longest = section.get("min_duration") or 0.0, section.get("max_duration") or float("inf")
        if shortest <= 0 and longest == float("inf"):
            continue
        found = durations(section, shortest, longest)
        for outside, setting, limit, words in (
            (found.long, "max_duration", longest, "longer"),
            (found.short, "min_duration", shortest, "shorter"),
        ):
            if not outside.rows:
                continue
            hours = f"{outside.seconds / 3600:.2f} of {found.seconds / 3600:.2f} hours"
            message = (
                f"{outside.rows:,} of {found.rows:,} recordings of the {name} data ({hours}) are {words} than "
                f"model.{key}.{setting}={limit:g} s and are left out "
                f"(the {'longest' if words == 'longer' else 'shortest'}: {outside.most:g} s, {outside.place}); to keep "
                f"these recordings, set model.{key}.{setting}"
            )
            if words == "longer":
                message += ", which needs more memory, or cut the recordings"
            if found.short.rows + found.long.rows == found.rows:
                raise UserError(message)
            say(message)


def durations(section: dict[str, Any], shortest: float, longest: float) -> Durations:
    """Return the durations of the local manifests of a resolved data section. At most ``LIMIT`` rows are read."""
    found = Durations()
    paths = [each.path for each in sources_of(section) if "://" not in each.path and os.path.isfile(each.path)]
    for path in paths:
        for number, row in islice(good_rows(path), max(1, LIMIT // len(paths))):
            seconds = float(row.get("duration") or 0.0)
            found.rows, found.seconds = found.rows + 1, found.seconds + seconds
            place = f"{path}, line {number}"
            if seconds > longest:
                found.long.add(seconds, place, seconds > found.long.most)
            elif 0 < seconds < shortest:
                found.short.add(seconds, place, seconds < found.short.most)
    return found
