"""The end of training before its last step: after Ctrl-C, after SIGTERM, or when the time of a run is over."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import StatelessTimer

from nemo_squeezeformer.errors import Terminated

NOTICE = "Ctrl-C: the training ends after this step; press Ctrl-C again to end it at once"


class PutOff(Protocol):
    """Signals whose exception can be put off, for example until the end of a batch."""

    due: bool
    before_end: list[Callable[[], object]]

    def put_off(self, notice: str = "") -> None: ...
    def hold(self) -> None: ...
    def stop_putting_off(self) -> None: ...
    def check(self) -> None: ...
    def end(self) -> None: ...


class StopAfterBatch(Callback):
    """A callback that delays the exception of a signal until the end of a step, and first writes the last checkpoint.

    An exception inside a step would leave a part of the step in the weights. An exception while a checkpoint is written
    would leave an incomplete file. With several processes, the exception comes after a batch. The callback then writes
    no checkpoint, because the processes do not stop after the same batch. On GPUs, NeMo's ``PreemptionCallback`` writes
    the checkpoint of several processes. During validation, the signal ends the run at once, because Lightning cannot
    resume in the middle of a validation.
    """

    def __init__(self, signals: PutOff):
        self.signals = signals
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signals.put_off(NOTICE if trainer.world_size == 1 else "")
        launcher = trainer.strategy.launcher
        if launcher is not None:  # the processes of other devices would wait for this process
            self.signals.before_end.append(partial(launcher.kill, signal.SIGKILL))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.signals.due:
            return
        if trainer.world_size == 1:
            if trainer.global_step == self._steps:  # the checkpoint would lack the gradients that are accumulated
                return
            self.signals.hold()  # a signal that interrupts the writing leaves an incomplete checkpoint
            _save_last(trainer)
        self.signals.check()

    def on_validation_batch_start(self, *_: Any) -> None:
        self.signals.check()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.signals.end()


def _save_last(trainer: Trainer) -> None:
    """Write the last checkpoint, as NeMo's ``PreemptionCallback`` does."""
    writer = trainer.checkpoint_callback
    if not isinstance(writer, NeMoModelCheckpoint):
        return
    if writer._last_global_step_saved != trainer.global_step:
        logging.info(f"Writing a checkpoint of step {trainer.global_step} before the end")
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.current.ready > progress.current.completed:
            progress.increment_completed()  # otherwise, a resumed run would train on this batch again
        writer._save_last_checkpoint(trainer, writer._monitor_candidates(trainer))


@contextlib.contextmanager
def ended_by_signals(trainer: Trainer, signals: PutOff, resumable: bool) -> Iterator[None]:
    """Let a signal end ``trainer.fit`` and ``trainer.test`` with an exception that says how to continue.

    Lightning and NeMo turn a signal into ``SystemExit``, NeMo with the status 0.

    Args:
        trainer: the trainer. The function adds a callback to the trainer.
        signals: the signals of the command.
        resumable: whether the same command continues the run.

    Raises:
        KeyboardInterrupt: Ctrl-C has ended the training.
        Terminated: SIGTERM has ended the training.
    """
    trainer.callbacks.append(StopAfterBatch(signals))  # type: ignore[attr-defined]
    try:
        yield
        signals.stop_putting_off()
    except (SystemExit, KeyboardInterrupt) as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__context__
        raise (type(cause) if cause else Terminated)(how_to_continue(trainer, resumable)) from None


def is_out_of_time(trainer: Trainer) -> bool:
    """Return True if ``max_time_per_run`` has ended ``trainer.fit`` before its last step.

    Lightning does not raise an exception at the end of the time. ``trainer.max_time`` has another timer.
    """
    timers = [each for each in trainer.callbacks if isinstance(each, StatelessTimer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    steps, epochs = trainer.max_steps, trainer.max_epochs
    last_step = 0 <= steps <= trainer.global_step
    last_epoch = epochs is not None and 0 <= epochs <= trainer.current_epoch
    return not last_step and not last_epoch and any(seconds is not None and seconds <= 0 for seconds in left)


def how_to_continue(trainer: Trainer, resumable: bool) -> str:
    """Return a line that names the last checkpoint and the way to continue from it."""
    writer = trainer.checkpoint_callback
    path = Path(getattr(writer, "last_model_path", "") or "no checkpoint")
    if not path.exists() or NeMoModelCheckpoint.is_checkpoint_unfinished(path):
        if resumable and any(Path(getattr(writer, "dirpath", None) or "no folder").glob("*.ckpt")):
            return "the same command resumes the run from its newest complete checkpoint"
        return "the run has no complete checkpoint, so the next run starts from the beginning"
    if resumable:
        return f"the same command resumes the run from {path}"
    version = path.parent.parent.name
    if re.fullmatch(r"\d{4}(-\d\d){2}_\d\d(-\d\d){2}", version):  # NeMo's folder of a run; the run continues there
        added = f"+resume=exact ++exp_manager.version={version}"
    else:
        added = "+resume=exact " + shlex.quote(f'++exp_manager.resume_from_checkpoint="{path}"')
    if command := _command():
        return f"{path} is written; this command resumes the run: {command} {added}"
    return f"to resume the run, add {added} to the command"


def _command() -> str:
    """Return the command that has started this process, or "" if another program calls the training."""
    program, *arguments = sys.argv
    if Path(program).name == "__main__.py" and Path(program).parent.name == "nemo_squeezeformer":
        return f"python -m nemo_squeezeformer {shlex.join(arguments)}"
    return shlex.join(["nemo-squeezeformer", *arguments]) if Path(program).stem == "nemo-squeezeformer" else ""
