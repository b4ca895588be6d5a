"""The recordings of utterances: their names, and the utterances of each recording."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from nemo_squeezeformer.files.manifests import Utterance


def by_name(utterances: Sequence[Utterance]) -> dict[str, list[int]]:
    """Return the indices of the utterances of each recording, in the order of their times.

    The key is the name of the recording: its path below the common folder of all recordings, without the extension.
    Recordings that differ only in the extension keep the extension. An utterance that cannot be used is left out.
    """
    found: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        path = utterance.audio[0] if isinstance(utterance.audio, list) else utterance.audio
        if path and not utterance.problem:
            found.setdefault(os.path.abspath(path), []).append(index)
    names = _names([PurePath(path) for path in found])
    return {name: sorted(of, key=lambda i: utterances[i].offset) for name, of in zip(names, found.values())}


def _names(paths: Sequence[PurePath]) -> list[str]:
    shared = len(os.path.commonprefix([path.parent.parts for path in paths]))
    below = [PurePath(*path.parts[shared:]) for path in paths]
    if below and below[0].is_absolute():  # on other drives of Windows
        below = [PurePath(*path.parts[1:]) for path in paths]
    without = [path.with_suffix("") for path in below]
    # Windows and macOS do not distinguish capital letters in file names.
    counts = Counter(os.fspath(path).casefold() for path in without)
    short = [name if counts[os.fspath(name).casefold()] == 1 else path for path, name in zip(below, without)]
    if len({os.fspath(name).casefold() for name in short}) < len(short):  # a.wav, a.mp3 and a.wav.mp3
        short = below
    return [name.as_posix() for name in short]
