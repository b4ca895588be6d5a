"""The recordings that models are trained and tested on, out of NeMo's manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple


class Recordings(NamedTuple):
    """Manifests of training and validation, and those of tests by name."""

    train: list[Path]
    dev: Path
    tests: dict[str, Path]


def digits(folder: Path) -> Recordings:
    """Connected digits: of the voices of the training (``seen``), and of another voice (``unseen``)."""
    return Recordings(
        [folder / "connected_train.jsonl", folder / "single_train.jsonl"],
        folder / "connected_dev.jsonl",
        {"seen": folder / "connected_test_seen.jsonl", "unseen": folder / "connected_test.jsonl"},
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(manifest: Path) -> list[dict[str, Any]]:
    """The rows of a manifest; the path of each recording leads to it from here."""
    return [row | {"audio_filepath": str(manifest.parent / row["audio_filepath"])} for row in json_lines(manifest)]
