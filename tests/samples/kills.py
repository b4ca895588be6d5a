"""Training that is killed at chosen moments. All runs are forks of one process, because the import of NeMo is slow."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import nemo.collections.asr.models  # noqa: F401
import pytest
import torch
from lightning.pytorch import Callback

from nemo_squeezeformer.commands import train as command
from nemo_squeezeformer.training.recipes import compose
from tests.samples.model_types.model_type import SMALL
from tests.samples.speech import write_manifest

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.", "tempfile.")
SAVE = "exp_manager.checkpoint_callback_params"
SETTINGS = [
    *SMALL,
    "model.encoder.d_model=16",
    "model.encoder.n_layers=2",
    "model.encoder.time_reduce_idx=0",
    "trainer.max_epochs=2",
    "+resume=exact",
    f"{SAVE}.every_n_train_steps=2",
    f"{SAVE}.every_n_epochs=null",
    f"{SAVE}.save_top_k=2",
]


def settings(folder: Path, *overrides: str) -> list[str]:
    """Return the settings of a run of eight steps that saves after every second step."""
    train_set = write_manifest(folder, seconds=0.3)
    dev_set = write_manifest(folder, utterances=2, seconds=0.3, name="dev")
    data = [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]
    return [*SETTINGS, *data, f"exp_manager.exp_dir={folder}/exp", *overrides]


def train(folder: Path, given: list[str], callback: Callback | None = None) -> int:
    """Train in a fork of this process, from fixed initial weights. Return the exit status, negative after a signal."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        with open(folder / "log.txt", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.chdir(folder)
            os.environ.pop("NEMO_EXPM_VERSION", None)
            torch.manual_seed(0)
            whole, added = lightning.Trainer, [callback] if callback else []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    lightning, "Trainer", lambda callbacks, **rest: whole(callbacks=callbacks + added, **rest)
                )
                command.train(compose("squeezeformer_ctc_char", given))
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class KilledForks(Callback):
    """At the start of a step, the run becomes a series of forks. Each fork continues the run and is killed.

    The folder ``exp`` after the death of fork ``n`` is in ``states/n``. The run ends after the last fork.

    Args:
        folder: folder of the run.
        step: number of finished optimizer steps at which the forks begin.
        kills: functions that prepare the death of a fork.
    """

    def __init__(self, folder: Path, step: int, kills: list[Callable[[], None]]):
        self.folder, self.step, self.kills = folder, step, kills

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != self.step:
            return
        exp, before, states = self.folder / "exp", self.folder / "before", self.folder / "states"
        shutil.copytree(exp, before)
        for number, kill in enumerate(self.kills):
            process = os.fork()
            if not process:
                kill()
                return
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status != 0:  # otherwise, the run has ended before the kill
                shutil.copytree(exp, states / str(number))
            shutil.rmtree(exp)
            shutil.copytree(before, exp)
        sys.stdout.flush()
        os._exit(0)


def at_change(number: int, folder: Path) -> Callable[[], None]:
    """Kill the process before its change ``number`` of files, counted after the first change in ``folder``."""

    def arm() -> None:
        counted = 0

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal counted
            changes = event.startswith(CHANGES)
            if event == "open":
                path, mode, flags = arguments
                changes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if flags else "r" not in str(mode or "r")
            if changes and (counted or str(folder) in str(arguments[0])):
                counted += 1
                if counted > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)

    return arm


def after(seconds: float) -> Callable[[], None]:
    """Kill the process after ``seconds``."""

    def arm() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel ends the process at once, without any clean-up
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return arm


def last_checkpoint(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "exp").glob("*/checkpoints/*-last.ckpt")
    return torch.load(path, map_location="cpu", weights_only=False)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of the weights and optimizer states of two checkpoints that are not equal bit by bit."""
    found = [name for name, value in one["state_dict"].items() if not torch.equal(value, other["state_dict"][name])]
    (states,), (others,) = one["optimizer_states"], other["optimizer_states"]
    for key, state in states["state"].items():
        found += [
            f"{key}.{name}" for name, value in state.items() if not torch.equal(value, others["state"][key][name])
        ]
    found += [key for key in ("global_step", "epoch", "lr_schedulers") if one[key] != other[key]]
    return found
