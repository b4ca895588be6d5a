"""The audio files in a folder and in the folders below it, and the files that are left out."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from functools import cache
from pathlib import Path

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.audio_file import AUDIO_EXTENSIONS, AV_EXTENSIONS, EXTRA

OTHER_EXTENSIONS = {  # extensions that differ from the name of the format in soundfile.available_formats()
    "AIFF": (".aif", ".aifc"),
    "AU": (".snd",),
    "NIST": (".sph",),
    "OGG": (".oga", ".opus"),
}
NOT_AUDIO = ("HTK", "MAT4", "MAT5", "RAW")  # features, matrices, and samples without a header
SHOWN = 8  # kinds of files that the sentence shows
HIDDEN = "__MACOSX"  # a folder that archives of macOS add; a name that begins with a dot is hidden too


@cache
def extensions() -> frozenset[str]:
    """Return the extensions of the audio formats that can be read here, for example ``.wav``."""
    import soundfile

    formats = [name for name in soundfile.available_formats() if name not in NOT_AUDIO]
    others = [extension for name in formats for extension in OTHER_EXTENSIONS.get(name, ())]
    found = AUDIO_EXTENSIONS.union(others, (f".{name.lower()}" for name in formats))
    return found | AV_EXTENSIONS if importlib.util.find_spec("av") else found


def audio_files(folder: str | os.PathLike[str]) -> tuple[list[Path], str]:
    """Return the audio files of a folder, and a sentence about the files that are left out, or an empty string.

    Hidden files and hidden folders are passed over and not counted, for example ``._a.wav`` and ``.git``. A link to a
    folder is not followed.

    Raises:
        UserError: the folder or a folder below it cannot be read, or has no audio files.
    """
    found, others = list[Path](), Counter[str]()
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        others["link to a folder"] += sum(os.path.islink(os.path.join(place, name)) for name in folders)
        for name in filter(lambda name: not _is_hidden(name), files):
            path = Path(place, name)
            if path.suffix.lower() in extensions():
                found.append(path)
            else:
                others[path.suffix.lower() or "without an extension"] += 1
    left_out = _left_out(folder, +others)
    if not found:
        kinds = " ".join(sorted(extensions()))
        raise UserError(
            f"no audio in the folder {folder}: searched it and the folders below it for {kinds}"
            + (f" ({left_out})" if left_out else "")
        )
    return sorted(found), left_out


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == HIDDEN


def _left_out(folder: str | os.PathLike[str], others: Counter[str]) -> str:
    """Return a sentence about the number of files of each kind that is left out."""
    if not others:
        return ""
    ordered = sorted(others.items(), key=lambda kind: (-kind[1], kind[0]))
    kinds = ", ".join(f"{number} {kind}" for kind, number in ordered[:SHOWN])
    kinds += f" and {len(others) - SHOWN} more kinds" if len(others) > SHOWN else ""
    sentence = f"left out in the folder {folder}: {kinds}"
    if lacking := sorted(AV_EXTENSIONS & set(others)):
        sentence += f"; to read {' '.join(lacking)}, run: {EXTRA}"
    return sentence


def _refuse(error: OSError) -> None:
    raise UserError(f"the folder {error.filename} cannot be read ({error.strerror}); correct its permissions")
