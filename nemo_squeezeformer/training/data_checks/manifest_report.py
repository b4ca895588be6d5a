"""The report about a manifest: the durations, the sample rates, the text, and the levels of the recordings."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_squeezeformer.files.audio.levels import Level, read_levels
from nemo_squeezeformer.files.manifests import Utterance, read_utterances
from nemo_squeezeformer.training.data_checks.manifest_checks import REQUIRED
from nemo_squeezeformer.training.data_checks.shared_rows import recording

SHOWN = 5  # rows or files of a kind


def report(manifest: str, samples: bool) -> tuple[dict[str, Any], list[Utterance]]:
    """Return the report about a manifest as plain values, and the rows of the manifest.

    Args:
        samples: if True, read the samples of all recordings to find silent and clipped recordings.

    Raises:
        UserError: the manifest is missing, empty or not text.
    """
    rows = read_utterances(manifest, REQUIRED, strict=False)
    good = [each for each in rows if not each.problem]
    made = {
        "manifest": manifest,
        "rows": len(rows),
        "unusable": len(rows) - len(good),
        "problems": [each.problem for each in rows if each.problem][:SHOWN],
        "hours": round(sum(each.duration for each in good) / 3600, 3),
        "seconds": _seconds([each.duration for each in good]),
        "sample_rates": _counted(each.rate for each in good),
        "channels": _counted(each.channels for each in good),
        "repeated_recordings": _repeated(manifest, good),
        "text": _text(rows),
    }
    if samples:
        made |= _levels(read_levels(path for each in good for path in _paths(each)))
    return made, rows


def _seconds(durations: Sequence[float]) -> dict[str, float]:
    if not durations:
        return {}
    found = {"shortest": min(durations), "median": statistics.median(durations), "longest": max(durations)}
    return {name: round(seconds, 2) for name, seconds in found.items()}


def _counted(values: Any) -> dict[str, int]:
    return {str(each): number for each, number in Counter(values).most_common()}


def _repeated(manifest: str, rows: Sequence[Utterance]) -> int:
    """Return the number of rows whose recording is also in an earlier row."""
    return len(rows) - len({recording(each.row, manifest) for each in rows})


def _text(rows: Sequence[Utterance]) -> dict[str, Any]:
    texts = [str(each.row.get("text") or "") for each in rows]
    spoken = [(text, each.duration) for text, each in zip(texts, rows) if text.strip() and each.duration]
    seconds = sum(duration for _, duration in spoken)
    letters = Counter(letter for text in texts for letter in text)
    return {
        "missing": sum(not each.problem and each.row.get("text") is None and "label" not in each.row for each in rows),
        "empty": sum(each.row.get("text") is not None and not text.strip() for text, each in zip(texts, rows)),
        "words": sum(len(text.split()) for text in texts),
        "different": len(set(texts)),
        "characters": "".join(sorted(letters)),
        "rare_characters": "".join(sorted(letter for letter, number in letters.items() if number < SHOWN)),
        "characters_per_second": round(sum(len(text) for text, _ in spoken) / seconds, 1) if seconds else None,
    }


def _levels(levels: Mapping[str, Level]) -> dict[str, Any]:
    kinds = {
        "silent": [path for path, level in levels.items() if level.silent],
        "clipped": [path for path, level in levels.items() if level.clipped],
        "unreadable": [level.problem for level in levels.values() if level.problem],
    }
    return {kind: {"files": len(found), "first": found[:SHOWN]} for kind, found in kinds.items()}


def _paths(utterance: Utterance) -> list[str]:
    return utterance.audio if isinstance(utterance.audio, list) else [utterance.audio]
