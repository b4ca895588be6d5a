"""The extras of this package that install other packages, and the error for a package that is not installed."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

NEMO = "nemo"
EXTRAS = {  # a top-level module, and the extra of setup.py that installs it
    **dict.fromkeys(
        [
            "braceexpand",
            "hydra",
            "lightning",
            "lightning_utilities",
            "nemo",
            "numpy",
            "omegaconf",
            "rich",
            "sentencepiece",
            "soundfile",
            "soxr",
            "tokenizers",
            "tqdm",
            "webdataset",
            "yaml",
        ],
        NEMO,
    ),
    "aiohttp": "serve",
    "av": "audio",
    "h5py": "tensorflow",
    "matplotlib": "plots",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "safetensors": "safetensors",
    "silero_vad": "vad",
}
HOSTS = {"nemo", "lightning", "lhotse"}  # packages that import further packages, which the extra `nemo` installs


def extra_of(error: ImportError, default: str | None = None) -> str | None:
    """Return the extra that installs the missing module, or None.

    Args:
        error: the error of an import.
        default: the extra to name in place of the extra ``nemo``. It installs all modules of the program.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    extra = EXTRAS.get(error.name.partition(".")[0])
    if extra is None:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        importing = [str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames]
        importing = [name for name in importing if name != "importlib"]
        extra = NEMO if importing and importing[-1] in HOSTS else None
    return default if default and extra == NEMO else extra


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'nemo-squeezeformer[{extra}]'"


def missing(error: ImportError, what: str, default: str | None = None) -> str:
    """Return the message for a missing module, or an empty text if no extra installs the module.

    Args:
        error: the error of the import.
        what: what needs the module, for example "this command".
        default: see ``extra_of``.
    """
    extra = extra_of(error, default)
    if extra is None:
        return ""
    module = (error.name or "").partition(".")[0]
    needs = f"NeMo, but the module {module} is" if extra == NEMO else f"the module {module}, which is"
    return f"{what} needs {needs} not installed; run: {install(extra)}"


@contextlib.contextmanager
def named(what: str, default: str | None = None) -> Iterator[None]:
    """Let the error of an import name the extra that installs the missing module.

    Raises:
        ModuleNotFoundError: a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if message := missing(error, what, default):
            raise ModuleNotFoundError(message, name=error.name) from error
        raise
