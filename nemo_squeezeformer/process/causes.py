"""The causes of failed trainings: a table of the errors of NeMo, Lightning and PyTorch that a setting corrects."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from nemo_squeezeformer.errors import UserError

LONGEST = 400  # characters of the error of a library in a message of one line
OURS = "nemo_squeezeformer."  # the beginning of the names of our modules


@dataclass(frozen=True)
class Cause:
    """A failure that users meet, and its remedy.

    Attributes:
        kinds: names of exception classes; a subclass counts too.
        words: a regular expression that the message of the exception contains.
        remedy: what the user can do. ``{0}``, ``{1}`` are the groups of ``words``.
        module: the beginning of the name of the module that has raised the exception.
    """

    kinds: str
    words: str
    remedy: str
    module: str = ""


LESS_MEMORY = (
    "the memory is full; set a smaller model.train_ds.batch_size with a larger trainer.accumulate_grad_batches, a "
    "smaller model.train_ds.max_duration, model.encoder.gradient_checkpointing=true or a smaller size; for a "
    "transducer, set a smaller model.joint.fused_batch_size; `nemo-squeezeformer info RECIPE --batch N` estimates the "
    "memory"
)
CAUSES = (
    Cause(
        "RuntimeError",
        r"\"(\w+?)(?:_cpu|_cuda)?\" not implemented for '(\w+)'",
        "PyTorch has no {0} for {1} on this device; set trainer.precision=32",
    ),
    Cause(
        "RuntimeError",
        r"stack expects each tensor to be equal size, but got (?:\[\d+\].*\[\d+, \d+\]|\[\d+, \d+\].*\[\d+\])",
        "a batch has recordings with one channel and with several channels; add "
        "+model.train_ds.channel_selector=average, and the same for the other data sets",
    ),
    Cause("OutOfMemoryError MemoryError", "", LESS_MEMORY),
    Cause("RuntimeError", r"can't allocate memory|not enough memory|out of memory|ALLOC_FAILED|bad_alloc", LESS_MEMORY),
    # PyTorch's oneDNN on a CPU. "could not create a primitive descriptor for ..." means an operation without support.
    Cause("RuntimeError", r"could not (?:create|execute) a primitive(?! descriptor)", LESS_MEMORY),
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
        r"Error\(s\) in loading state_dict",
        "the weights belong to other settings or to another vocabulary; use the settings and the tokenizer of the "
        "file, or start without the file",
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
    Cause(
        "TypeError",
        "instances of 'str'",
        "a setting is a text, but a number is needed; correct the setting",
        "nemo_squeezeformer.training",
    ),
    Cause("MissingMandatoryValue", r"full_key: (\S+)", "give this setting a value, for example model.{0}=VALUE"),
    Cause(
        "ConfigAttributeError",
        r"Key '(\w+)' is not in struct",
        "the recipe has no setting {0}, which the class of model_target needs; choose a recipe for this class",
    ),
    Cause("OmegaConfBaseException", "", "correct this setting in the recipe or the command"),
    Cause("HydraException", "", "correct the settings of this class in the recipe or the command"),
    Cause(
        "ValueError",
        "(?i)tokenizer",
        "set model.tokenizer.type=bpe for a folder that `nemo-squeezeformer tokenizer` has written",
        "nemo.collections",
    ),
    Cause("ValueError", "Located non-class", "set model_target to a class of NeMo", "hydra"),
    # These exceptions always mean a setting, and their messages name the setting or its value.
    Cause("MisconfigurationException ValueError", "", "correct this setting of trainer or exp_manager", "lightning"),
    Cause("ValueError", "", "correct this setting of model.train_ds or model.validation_ds", "torch.utils.data"),
    Cause("NotFoundError CheckpointMisconfigurationError", "", "correct this setting of exp_manager", "nemo.utils"),
    Cause(
        "FileNotFoundError NotADirectoryError IsADirectoryError",
        "",
        "correct this path or name in the recipe or the command",
    ),
)


def explain(error: BaseException) -> str:
    """Return one line about the cause of a failed training and its remedy, or "" if the cause is not known.

    The cause can be any exception that led to ``error``. Our own errors come first, because their messages name the
    setting. Hydra wraps these errors.
    """
    led = list(_chain(error))
    for cause in led:
        if isinstance(cause, UserError) or (isinstance(cause, ValueError) and _module(cause).startswith(OURS)):
            return one_line(str(cause))
    for known in CAUSES:
        for cause in led:
            names = {kind.__name__ for kind in type(cause).__mro__}
            found = re.search(known.words, str(cause), flags=re.DOTALL)
            if found and names & set(known.kinds.split()) and _module(cause).startswith(known.module):
                return f"{one_line(str(cause) or type(cause).__name__)}: {known.remedy.format(*found.groups())}"
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the memory of the machine or of the GPU is full."""
    return LESS_MEMORY in explain(error)


def one_line(text: str) -> str:
    """Return the text with single spaces, and shortened to ``LONGEST`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, the exception that led to it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _module(error: BaseException) -> str:
    """Return the name of the module that has raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__")) if frames else ""
