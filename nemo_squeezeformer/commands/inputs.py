"""The inputs of the commands that transcribe: a model, audio files, folders and manifests."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files import manifests
from nemo_squeezeformer.files.audio import folders
from nemo_squeezeformer.files.manifest_paths import expanded, is_manifest
from nemo_squeezeformer.files.manifests import Utterance
from nemo_squeezeformer.files.nemo_archive import check_archive
from nemo_squeezeformer.integration import nemo_versions
from nemo_squeezeformer.process import gpus


def check_model(name: str) -> None:
    """Raise a UserError if ``name`` cannot be a model. This check is fast and needs no NeMo."""
    path = Path(name)
    if path.is_file() and path.suffix != ".ckpt":
        check_archive(name)
    if path.is_dir() or (not path.exists() and path.suffix in {".nemo", ".ckpt"}):
        raise UserError(
            f"there is no model file {name}; give a .nemo file, a checkpoint (.ckpt) or the name of a pretrained model"
        )


def utterances(inputs: Sequence[str], strict: bool = True) -> list[Utterance]:
    """Return all utterances of the inputs, in the order of the inputs.

    Args:
        strict: if False, a row or a file that cannot be used is an utterance with a ``problem``.

    Raises:
        UserError: an input is missing, unreadable or empty. The function checks all inputs, and does not need NeMo.
    """
    found: list[Utterance] = []
    for manifest, names in itertools.groupby(inputs, is_manifest):
        if manifest:
            for path in (path for name in names for path in expanded(name)):
                if "://" in path:
                    raise UserError(f"the manifest {path} is an address; copy the manifest to this machine first")
                found += manifests.read_utterances(path, ("audio_filepath",), strict, for_training=False)
        else:  # all files in one call, so that one error names all problems
            found += manifests.read_files([file for name in names for file in _files(name)], strict)
    return found


def _files(name: str) -> list[str]:
    if "://" in name or not os.path.isdir(name):
        return [name]
    files, left_out = folders.audio_files(name)
    if left_out:
        say(left_out)
    return [os.fspath(file) for file in files]


def no_channel(utterance: Utterance, channel: str | int) -> str:
    """Return the message about audio that does not have the channel."""
    return f"--channel {channel}: {utterance.audio} has only {utterance.channels} channels, numbered from 0"


def check_channels(utterances: Sequence[Utterance], channel: str | int) -> None:
    """If recordings have several channels, print the channel that is transcribed.

    Raises:
        UserError: audio with several channels does not have the channel number ``channel``.
    """
    several = [utterance for utterance in utterances if utterance.channels > 1]
    lacking = [utterance for utterance in several if isinstance(channel, int) and utterance.channels <= channel]
    if lacking:
        raise UserError(no_channel(lacking[0], channel))
    if several:
        what = "their average is" if channel == "average" else f"channel {channel} is"
        say(f"{len(several)} of {len(utterances)} utterances have several channels: {what} transcribed (--channel)")


def check_device(device: str) -> None:
    """Raise a UserError if the value of ``--device`` cannot be used. This check is fast and needs no PyTorch."""
    if device == "cuda" and (reason := gpus.without_cuda()):
        raise UserError(f"--device cuda: {reason}; use --device cpu")


def chosen_device(device: str) -> Any:
    """Return the ``torch.device`` for a value of ``--device``.

    Raises:
        UserError: the device does not exist.
    """
    import torch

    check_device(device)
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def quiet(verbose: bool) -> Iterator[None]:
    """Hide NeMo's log and all warnings, unless ``verbose``. Redirect printed text to stderr.

    A line about a version of NeMo that was not tested is always printed.
    """
    os.environ.setdefault("NEMO_REDIRECT_LOGS_TO_STDERR", "1")
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not verbose:
            if complaint := nemo_versions.complaint():
                say(f"warning: {complaint}")
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def say(message: str) -> None:
    """Print a line on stderr. Stdout contains only transcripts."""
    print(message, file=sys.stderr)
