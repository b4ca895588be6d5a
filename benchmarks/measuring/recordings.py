"""The recordings on which models are trained and tested, read from NeMo manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple


class Recordings(NamedTuple):
    """The manifests of training and validation, and the named manifests of the tests."""

    train: list[Path]
    dev: Path
    tests: dict[str, Path]


def digits(folder: Path) -> Recordings:
    """Return the manifests of connected digits in ``folder``.

    The test set ``seen`` has the speakers of the training set. The test set ``unseen`` has an unseen speaker.
    """
    return Recordings(
        [folder / "connected_train.jsonl", folder / "single_train.jsonl"],
        folder / "connected_dev.jsonl",
        {"seen": folder / "connected_test_seen.jsonl", "unseen": folder / "connected_test.jsonl"},
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(manifest: Path) -> list[dict[str, Any]]:
    """Return the rows of a manifest. Paths of recordings are relative to the working directory, not to the manifest."""
    return [row | {"audio_filepath": str(manifest.parent / row["audio_filepath"])} for row in json_lines(manifest)]


def named_manifest(text: str) -> tuple[str, Path]:
    """Return the name and the manifest of an option ``NAME=PATH``."""
    name, _, path = text.partition("=")
    return name, Path(path)
