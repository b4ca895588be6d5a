"""Ctrl-C and SIGTERM: one line, the status of a shell, no temporary files, and a run that can be resumed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, Dataset

from nemo_squeezeformer.errors import Terminated, UserError
from nemo_squeezeformer.process import program, signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORD = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
EXCEPTION = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
both = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers_of_a_shell():
    """Set the handlers of a command that a shell starts. A background job of a shell ignores Ctrl-C."""
    before = {number: signal.getsignal(number) for number in STATUS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(command, capsys) -> tuple[int, str]:
    """Run a command in this process, and return its status and its errors."""
    return program.run("program", command), capsys.readouterr().err


@both
def test_a_signal_ends_a_command_with_one_line_after_the_command_has_cleaned_up(number, capsys):
    cleaned = []

    def command() -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            cleaned.append(type(error))
            raise type(error)("OUT.partial is kept") from None
        return 0

    assert ended(command, capsys) == (STATUS[number], f"program: {WORD[number]}: OUT.partial is kept\n")
    assert cleaned == [EXCEPTION[number]]


def test_the_end_of_the_terminal_ends_a_command(capsys):
    status, errors = ended(lambda: signal.raise_signal(signal.SIGHUP) or 0, capsys)
    assert status == 129 and errors == "program: terminated, because the terminal has closed\n"


@both
@pytest.mark.parametrize(
    "turned", [SystemExit(0), ImportError("initialization failed"), UserError("no audio")], ids=str
)
def test_a_signal_decides_the_status_if_a_library_turns_its_exception_into_another(number, turned, capsys):
    def command() -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise turned from None
        return 0

    status, errors = ended(command, capsys)
    assert status == STATUS[number] and errors.splitlines()[-1] == f"program: {WORD[number]}"


def test_an_exception_that_python_ignores_is_raised_again(capsys):
    class Collected:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0)

    def command() -> int:
        Collected()
        time.sleep(10)
        return 0

    begin = time.monotonic()
    assert ended(command, capsys) == (143, "program: terminated\n")
    assert time.monotonic() - begin < 5


def test_a_signal_waits_for_the_import_of_torch(monkeypatch, capsys):
    """An exception in this import would end the process with abort(), because C++ code of torch calls Python."""
    importing = ModuleType("torch")
    importing.__spec__ = SimpleNamespace(_initializing=True)
    reached = []

    def command() -> int:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch", importing)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)
            reached.append("end of the import")
        time.sleep(10)
        reached.append("end of the command")
        return 0

    assert ended(command, capsys)[0] == 143
    assert reached == ["end of the import"]


def test_a_copy_of_a_signal_is_not_a_second_signal(capsys):
    """``timeout`` sends SIGTERM to the process and to its group."""

    def command() -> int:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
        return 0

    assert ended(command, capsys)[0] == 143


PROGRAM = """
import signal, sys, time
from nemo_squeezeformer.process import program, signals
def command():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60)
sys.exit(program.run("program", command))
"""


def test_a_second_signal_ends_the_process_at_once():
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, preexec_fn=default)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(signals.TWICE + 0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == -signal.SIGINT


def default() -> None:
    """Let the started process handle Ctrl-C, also if this process is a background job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_signal_that_the_parent_ignores_stays_ignored(capsys):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert ended(lambda: signal.raise_signal(signal.SIGINT) or 5, capsys) == (5, "")


def test_a_forked_process_ends_silently_after_sigterm(capfd):
    read, write = os.pipe()

    def command() -> int:
        child = os.fork()
        if child == 0:
            os.write(write, b"begun")
            time.sleep(60)
            os._exit(0)
        os.read(read, 5)  # Python drops a signal that arrives during the fork
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert program.run("program", command) == -signal.SIGTERM
    assert capfd.readouterr().err == ""


class Numbers(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> int:
        time.sleep(0.1)
        return number


def test_ctrl_c_does_not_end_the_processes_that_read_data(capsys):
    """A terminal sends Ctrl-C also to these processes, and the step that the training ends can need their data."""

    def command() -> int:
        batches = iter(DataLoader(Numbers(), batch_size=1, num_workers=1))
        first = next(batches)
        (worker,) = batches._workers
        os.kill(worker.pid, signal.SIGINT)
        return len([first, *batches])

    assert ended(command, capsys) == (4, "")


def test_a_signal_can_be_put_off_until_a_check(capsys):
    reached = []

    def command() -> int:
        signals.current.put_off()
        signal.raise_signal(signal.SIGTERM)
        reached.append("end of the batch")
        signals.current.check()
        reached.append("next batch")
        return 0

    assert ended(command, capsys)[0] == 143
    assert reached == ["end of the batch"]


def test_a_signal_that_is_put_off_too_long_is_raised(monkeypatch, capsys):
    monkeypatch.setattr(signals, "PATIENCE", 0.1)

    def command() -> int:
        signals.current.put_off()
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)
        return 0

    begin = time.monotonic()
    assert ended(command, capsys)[0] == 143
    assert time.monotonic() - begin < 5


def test_no_signal_interrupts_what_is_done_before_the_check(monkeypatch, capsys):
    monkeypatch.setattr(signals, "PATIENCE", 0.1)
    reached = []

    def command() -> int:
        signals.current.put_off()
        signal.raise_signal(signal.SIGTERM)
        signals.current.hold()
        time.sleep(0.5)
        reached.append("the file is written")
        signals.current.check()
        return 0

    assert ended(command, capsys)[0] == 143
    assert reached == ["the file is written"]


def test_ctrl_c_waits_with_a_notice_and_without_a_limit(monkeypatch, capfd):
    monkeypatch.setattr(signals, "PATIENCE", 0.1)
    reached = []

    def command() -> int:
        signals.current.put_off("wait for the end")
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.5)
        reached.append("end of the batch")
        signals.current.check()
        return 0

    assert program.run("program", command) == 130
    assert reached == ["end of the batch"]
    assert capfd.readouterr().err.splitlines() == ["", "wait for the end", "program: interrupted"]


@both
def test_a_script_that_run_starts_ends_with_one_line(number, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time; print('begun', flush=True); time.sleep(60)")
    status, errors = stopped(["run", str(script)], number, tmp_path)
    assert (status, errors) == (STATUS[number], f"nemo-squeezeformer: {WORD[number]}\n")


def stopped(arguments: list[str], number: int, folder: Path, seconds: float | None = None) -> tuple[int, str]:
    """Start a command in ``folder``, and send a signal after some seconds or after the first line of the output."""
    command = [sys.executable, "-m", "nemo_squeezeformer", *arguments]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, preexec_fn=default)
    assert process.stdout is not None
    if seconds is None:
        process.stdout.readline()
    else:
        while process.poll() is None and not _handles_sigterm(process.pid):
            time.sleep(0.02)  # before this moment, Python itself ends the process
        time.sleep(seconds)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


def _handles_sigterm(pid: int) -> bool:
    """Return True if a process handles SIGTERM. Python does not handle SIGTERM before the command begins."""
    lines = _read(Path(f"/proc/{pid}/status")).decode().splitlines()
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


class Signal(Callback):
    """A callback that receives a signal in the middle of a batch, as from another process."""

    def __init__(self, number: int, step: int, hook: str):
        self.number, self.step = number, step
        setattr(self, hook, self.receive)

    def receive(self, trainer, *_):
        if trainer.global_step == self.step:
            self.step = -1
            signal.raise_signal(self.number)


def train(folder: Path, *callbacks: Callback, monkeypatch, more: Sequence[str] = ()) -> tuple[int, Path | None]:
    """Run ``train`` with ``+resume=exact`` from fixed weights. Return the status and the last checkpoint."""
    import lightning.pytorch as lightning

    from nemo_squeezeformer.__main__ import main
    from tests.training.test_scale_resume import settings

    def trainer(**config):
        return lightning_trainer(**(config | {"callbacks": [*(config.get("callbacks") or []), *callbacks]}))

    lightning_trainer = lightning.Trainer
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    overrides = [*settings(folder), "+resume=exact", f"exp_manager.exp_dir={folder}/exp", *more]
    overrides.append("exp_manager.checkpoint_callback_params.always_save_nemo=false")
    with monkeypatch.context() as patch:
        patch.setattr(lightning, "Trainer", trainer)
        status = main(["train", "squeezeformer_ctc_char", *overrides])
    return status, next(folder.rglob("*-last.ckpt"), None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """Return the last checkpoint of a run that receives no signal."""
    with pytest.MonkeyPatch.context() as patch:
        status, last = train(tmp_path_factory.mktemp("unbroken"), monkeypatch=patch)
    assert status == 0 and last is not None
    return last


@pytest.mark.parametrize(
    "number, step, hook",
    [
        (signal.SIGTERM, 6, "on_before_zero_grad"),
        pytest.param(signal.SIGINT, 3, "on_train_batch_start", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 4, "on_train_epoch_start", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 4, "on_validation_batch_start", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 8, "on_validation_batch_start", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 8, "on_validation_end", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 7, "on_train_batch_start", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_signal_ends_training_with_a_checkpoint_from_which_the_run_continues_exactly(
    number, step, hook, unbroken, tmp_path, monkeypatch, capsys
):
    capsys.readouterr()
    status, last = train(tmp_path / "cut", Signal(number, step, hook), monkeypatch=monkeypatch)
    line = capsys.readouterr().err.splitlines()[-1]
    assert status == STATUS[number]
    then = f"the same command resumes the run from {last}"
    if last is None:  # the first validation, after which NeMo writes the first checkpoint
        assert (step, hook) == (4, "on_validation_batch_start")
        then = "the run has no complete checkpoint, so the next run starts from the beginning"
    assert line == f"nemo-squeezeformer: {WORD[number]}: {then}"
    assert not list(tmp_path.rglob("*unfinished*"))
    status, resumed = train(tmp_path / "cut", monkeypatch=monkeypatch)
    assert status == 0
    weights, others = (torch.load(path, weights_only=False)["state_dict"] for path in (unbroken, resumed))
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=0, atol=0)


@pytest.mark.slow
def test_a_signal_between_the_batches_of_a_step_waits_for_the_step(tmp_path, monkeypatch, capsys):
    more = ["trainer.accumulate_grad_batches=2"]
    _, unbroken = train(tmp_path / "unbroken", monkeypatch=monkeypatch, more=more)
    first = Signal(signal.SIGINT, 3, "on_train_batch_start")  # the first of two batches
    status, last = train(tmp_path / "cut", first, monkeypatch=monkeypatch, more=more)
    assert status == 130 and last is not None and "-step=4" in last.name
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"the same command resumes the run from {last}")
    assert train(tmp_path / "cut", monkeypatch=monkeypatch, more=more)[0] == 0
    resumed = next((tmp_path / "cut").rglob("*-last.ckpt"))
    weights, others = (torch.load(path, weights_only=False)["state_dict"] for path in (unbroken, resumed))
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


@pytest.mark.slow
def test_ctrl_c_ends_a_test_at_once(tmp_path, monkeypatch, capsys):
    reached = []

    class Reached(Callback):
        def on_test_batch_end(self, *_):
            reached.append("end of a batch")

    stop = Signal(signal.SIGINT, 12, "on_test_batch_start")
    more = ["model.test_ds.manifest_filepath=${model.validation_ds.manifest_filepath}", "model.test_ds.num_workers=0"]
    assert train(tmp_path / "cut", stop, Reached(), monkeypatch=monkeypatch, more=more)[0] == 130
    assert stop.step == -1 and reached == []


def test_a_signal_before_the_first_step_ends_training(tmp_path, monkeypatch, capsys):
    status, last = train(tmp_path / "cut", Signal(signal.SIGTERM, 0, "on_fit_start"), monkeypatch=monkeypatch)
    assert (status, last) == (143, None)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("nemo-squeezeformer: terminated: ")


@pytest.mark.slow
def test_a_run_that_nemo_ends_after_sigterm_has_not_ended_well(tmp_path, monkeypatch, capsys):
    """NeMo's ``PreemptionCallback`` handles SIGTERM itself with GPUs, and calls ``sys.exit(0)`` after a batch."""

    class Preemption(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 6:
                sys.exit(0)

    status, last = train(tmp_path / "cut", Preemption(), monkeypatch=monkeypatch)
    line = capsys.readouterr().err.splitlines()[-1]
    assert (status, line) == (143, f"nemo-squeezeformer: terminated: the same command resumes the run from {last}")


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with a model that streams, recordings, weights, a tokenizer and a script."""
    from tests.samples import original_weights
    from tests.samples.asr_models import asr_model, write_tokenizer
    from tests.samples.speech import write_manifest

    folder = write_tokenizer(tmp_path_factory.mktemp("given"))
    small = {"d_model": 16, "n_layers": 3, "n_heads": 2, "conv_kernel_size": 7, "vocabulary_size": 23}
    original_weights.write(folder / "weights.h5", split=True, **small)
    streaming = {"encoder": {"streaming": True, "att_context_size": [16, 7]}, "preprocessor": {"normalize": "NA"}}
    asr_model(**streaming).save_to(str(folder / "model.nemo"))
    write_manifest(folder, utterances=300, seconds=4.0)
    return folder


COMMANDS = [
    "info GIVEN/model.nemo",
    "transcribe GIVEN/model.nemo GIVEN/train.json",
    "transcribe GIVEN/model.nemo GIVEN/train.json --output OUT.jsonl",
    "stream GIVEN/model.nemo GIVEN/train.json --output OUT.jsonl",
    "tokenizer GIVEN/train.json --vocab-size 20 --output OUT",
    "import GIVEN/weights.h5 --tokenizer GIVEN/tokenizer.model --output OUT.nemo",
    "export GIVEN/model.nemo --output OUT.onnx",
    "export GIVEN/model.nemo --output OUT --format safetensors",
    "redundancy GIVEN/model.nemo --data GIVEN/train.json --output OUT.png",
    "train squeezeformer_ctc_char --print",
]


@pytest.mark.slow
@pytest.mark.parametrize("place, command", enumerate(COMMANDS), ids=COMMANDS)
def test_a_signal_ends_every_command_at_every_moment_with_one_line_and_without_temporary_files(
    place, command, given, tmp_path
):
    for moment, seconds in enumerate((0.3, 3.0, 9.0)):
        number = SIGNALS[(place + moment) % 2]
        folder = tmp_path / str(moment)
        folder.mkdir()
        arguments = command.replace("GIVEN", str(given)).split()
        status, errors = stopped(arguments, number, folder, seconds)
        assert not list(folder.glob(".unfinished-*"))
        assert "Traceback" not in errors and "Exception ignored" not in errors
        if status in (0, -number):  # the command has ended before the signal, or ends at this moment
            break
        assert (status, errors.splitlines()[-1][:30]) == (STATUS[number], f"nemo-squeezeformer: {WORD[number]}"[:30])
        assert {path.name for path in folder.iterdir()} <= {"OUT.jsonl.partial", "OUT.jsonl.partial.settings"}


@pytest.mark.slow
@pytest.mark.parametrize("number, devices", [(signal.SIGINT, 1), (signal.SIGTERM, 2)], ids=["SIGINT-1", "SIGTERM-2"])
def test_a_signal_also_ends_the_processes_that_training_has_started(number, devices, tmp_path):
    from tests.training.test_scale_resume import settings

    mark = f"SIGNALS_{tmp_path.name}_{devices}"
    overrides = [*settings(tmp_path), "trainer.max_epochs=1000", f"trainer.devices={devices}", "+resume=exact"]
    overrides += ["model.train_ds.num_workers=1", f"exp_manager.exp_dir={tmp_path}/exp"]
    command = [sys.executable, "-m", "nemo_squeezeformer", "train", "squeezeformer_ctc_char", *overrides]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, env=os.environ | {mark: "1"}, preexec_fn=default
        )
        begin = time.monotonic()
        while not list(tmp_path.rglob("*-last.ckpt")):
            assert process.poll() is None and time.monotonic() - begin < 240, (tmp_path / "log").read_text()
            time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(60) == STATUS[number]
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("nemo-squeezeformer:")]
    (last,) = tmp_path.rglob("*-last.ckpt")
    assert lines == [f"nemo-squeezeformer: {WORD[number]}: the same command resumes the run from {last}"]
    end = time.monotonic() + 60  # a process that reads audio notices some seconds later that its parent has ended
    while left := [path for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in _read(path)]:
        assert time.monotonic() < end, left
        time.sleep(0.5)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_line_of_a_run_that_is_not_resumable_gives_settings_that_resume_it(tmp_path):
    from nemo_squeezeformer.integration.callbacks.stop_after_batch import how_to_continue
    from nemo_squeezeformer.training.recipes import compose

    path = tmp_path / "the run--val_wer=1.0000-epoch=1-last.ckpt"
    path.write_bytes(b"")
    trainer = SimpleNamespace(checkpoint_callback=SimpleNamespace(last_model_path=str(path)))
    line = how_to_continue(trainer, resumable=False)
    added = shlex.split(line.removeprefix("to resume the run, add ").removesuffix(" to the command"))
    settings = compose("squeezeformer_ctc_char", added).exp_manager
    assert settings.resume_if_exists and settings.resume_from_checkpoint == str(path)
