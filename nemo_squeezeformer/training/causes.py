"""The causes of failed trainings: a table of the errors of NeMo, Lightning and PyTorch that a setting corrects."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from nemo_squeezeformer.errors import UserError

LONGEST = 400  # characters of the error of a library in a message of one line
OURS = "nemo_squeezeformer."  # how the names of our modules begin


@dataclass(frozen=True)
class Cause:
    """A failure that users meet, and its remedy.

    Attributes:
        kinds: names of exception classes; a subclass counts too.
        words: a regular expression that the message of the exception contains.
        remedy: what the user can do. ``{0}``, ``{1}`` are the groups of ``words``.
    """

    kinds: str
    words: str
    remedy: str


LESS_MEMORY = (
    "the memory is full; set a smaller model.train_ds.batch_size with trainer.accumulate_grad_batches, or a smaller "
    "model.train_ds.max_duration"
)
CAUSES = (
    Cause(
        "RuntimeError",
        r"\"(\w+?)(?:_cpu|_cuda)?\" not implemented for '(\w+)'",
        "PyTorch has no {0} for {1} on this device; set trainer.precision=32",
    ),
    Cause("OutOfMemoryError MemoryError", "", LESS_MEMORY),
    Cause("RuntimeError", r"can't allocate memory|not enough memory|out of memory", LESS_MEMORY),
    Cause(
        "RuntimeError",
        r"PytorchStreamWriter failed|inline_container|unexpected pos",
        "a checkpoint cannot be written; free space for it, or choose another exp_manager.exp_dir",
    ),
    Cause(
        "RuntimeError",
        r"DataLoader worker .*(?:exited unexpectedly|killed by signal)|shared memory",
        "a process that reads data has ended; if the memory or /dev/shm is full, set fewer model.train_ds.num_workers",
    ),
    Cause(
        "RuntimeError",
        r"EADDRINUSE|address already in use",
        "another run uses the port; set the environment variable MASTER_PORT to a free port",
    ),
    Cause(
        "UnicodeDecodeError",
        r"'ascii' codec",
        "the locale of this machine is not UTF-8; set the environment variable PYTHONUTF8=1",
    ),
    Cause(
        "TypeError",
        r"__init__\(\) got an unexpected keyword argument '(\w+)'",
        "this class has no setting {0}; remove the setting from the recipe or the command",
    ),
    # These classes of errors always mean a setting. Their messages name the setting.
    Cause("MisconfigurationException", "", "change this setting of trainer or exp_manager"),
    Cause("CheckpointMisconfigurationError NotFoundError LoggerMisconfigurationError", "", "change exp_manager"),
    Cause("OmegaConfBaseException HydraException", "", "correct this setting of the recipe"),
)


def explain(error: BaseException) -> str:
    """Return one line about the cause of a failed training and its remedy, or "" if the cause is not known.

    The cause can be any exception that led to ``error``. Our own errors come first, because their messages name the
    setting. Hydra wraps these errors.
    """
    led = list(_chain(error))
    for cause in led:
        if isinstance(cause, UserError) or (isinstance(cause, ValueError) and _is_ours(cause)):
            return one_line(str(cause))
    for known in CAUSES:
        for cause in led:
            names = {kind.__name__ for kind in type(cause).__mro__}
            found = re.search(known.words, str(cause), flags=re.DOTALL)
            if found and names & set(known.kinds.split()):
                return f"{one_line(str(cause) or type(cause).__name__)}: {known.remedy.format(*found.groups())}"
    return ""


def one_line(text: str) -> str:
    """Return the text with single spaces, and shortened to ``LONGEST`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, the exception that led to it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_ours(error: BaseException) -> bool:
    """Return whether a module of this package has raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith(OURS)
