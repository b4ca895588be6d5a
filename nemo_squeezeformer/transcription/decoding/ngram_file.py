"""Checks of a file with an n-gram model before NeMo reads the file."""

from __future__ import annotations

from pathlib import Path

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.nemo_archive import CONFIG, check_archive, read_member
from nemo_squeezeformer.transcription.decoding import arpa
from nemo_squeezeformer.transcription.saved_settings import read_settings

TARGET = "NGramGPULanguageModel"


def check_path(path: str) -> None:
    """Check the form of the file. This check needs neither NeMo nor the speech model.

    Raises:
        UserError: there is no file, or the file is neither an ARPA file of tokens nor a .nemo archive.
    """
    if not Path(path).is_file():
        raise UserError(f"--lm {path}: there is no such file; {arpa.REMEDY}")
    if path.endswith(".nemo"):
        check_archive(path)
    else:
        arpa.read_tokens(Path(path), f"--lm {path}")


def check(path: str, tokens: int) -> None:
    """Check that the n-gram model fits a speech model with this number of tokens.

    Raises:
        UserError: the n-gram model has other tokens, or the .nemo file is another kind of model.
    """
    if not path.endswith(".nemo"):
        largest, complete = arpa.read_tokens(Path(path), f"--lm {path}")
        if largest + 1 > tokens or (complete and largest + 1 < tokens):
            raise UserError(_other(path, str(largest + 1) if complete else f"at least {largest + 1}", tokens))
        return
    files = check_archive(path)
    config = read_settings(path, read_member(path, files[CONFIG]), files)
    if not str(config.get("target")).endswith(f".{TARGET}"):
        raise UserError(f"--lm {path} is not an n-gram model; {arpa.REMEDY}")
    if config.get("vocab_size") != tokens:
        raise UserError(_other(path, str(config.get("vocab_size")), tokens))


def _other(path: str, found: str, tokens: int) -> str:
    return (
        f"--lm {path} was made for another model: it has {found} tokens, but the model has {tokens}; make the file "
        "with `nemo-squeezeformer lm` and this model"
    )
