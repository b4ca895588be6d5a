"""The tokenizer of a .nemo file, written into a folder for NeMo's setting ``tokenizer.dir``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import check_archive, read_member
from nemo_squeezeformer.files.tokenizers import write_folder

INSIDE = "nemo:"  # NeMo's prefix of the name of a file in the archive
FILES = {"bpe": ("model_path", "tokenizer.model"), "wpe": ("vocab_path", "vocab.txt")}
PATHS = ("dir", "model_path", "vocab_path", "spe_tokenizer_vocab")  # settings that name files of the archive


def unpacked_tokenizer(path: str, section: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the tokenizer of a file into ``folder`` and return the settings of the tokenizer with the new folders.

    Args:
        path: the .nemo file.
        section: the section ``tokenizer`` of the configuration in the file.

    Raises:
        UserError: the file does not contain the tokenizer, or the type of the tokenizer is not known.
    """
    languages = section.get("langs")
    if not languages:
        return _unpacked(path, section, folder / "tokenizer")
    made = {name: _unpacked(path, each, folder / "tokenizer" / str(name)) for name, each in languages.items()}
    return {**section, "dir": None, "langs": made}


def _unpacked(path: str, section: dict[str, Any], folder: Path) -> dict[str, Any]:
    kind = str(section.get("type")).lower()
    if kind not in FILES:
        raise UserError(
            f"{path}: tokenizer.type is {section.get('type')}; fine-tuning keeps tokenizers of the types "
            f"{', '.join(FILES)}; give a new tokenizer with model.tokenizer.dir=DIR"
        )
    setting, usual = FILES[kind]
    content = _content(path, str(section.get(setting) or usual))
    folder.mkdir(parents=True)
    if kind == "bpe":
        write_folder(content, folder)
    else:
        (folder / usual).write_bytes(content)
    kept = {name: each for name, each in section.items() if name not in PATHS}
    return {**kept, "dir": str(folder), "type": kind}


def _content(path: str, name: str) -> bytes:
    """Return the content of a file in the archive.

    In archives of NeMo 1.0, the name has no ``nemo:`` and can be a path. Then only the last part of the path is used.
    """
    members = check_archive(path)
    wanted = os.path.normpath(name.removeprefix(INSIDE))
    found = members.get(wanted) or members.get(os.path.basename(wanted))
    if found is None:
        raise UserError(f"{path} contains no tokenizer ({name}); give a tokenizer with model.tokenizer.dir=DIR")
    return read_member(path, found)
