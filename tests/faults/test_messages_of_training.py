"""Failures that users meet in ``train``: one line with the cause and the remedy, and the traceback with --verbose."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from nemo_squeezeformer.__main__ import main
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import causes
from tests.samples.model_types.model_type import SMALL, spoken
from tests.samples.speech import write_manifest

BEGIN = "nemo-squeezeformer: error: "


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("given")
    never = "exp_manager.checkpoint_callback_params.always_save_nemo=false"
    return [*SMALL, *spoken(folder), "trainer.max_epochs=1", f"exp_manager.exp_dir={folder}/exp", never]


SETTINGS = [  # settings, and parts of the message
    (["model.encoder.n_heads=5"], "n_heads=5 must divide d_model=32", "n_heads=5"),
    (["+model.encoder.nonsense=1"], "SqueezeformerEncoder has no setting nonsense", "remove it"),
    (["trainer.precision=bf16-true"], "\"ctc_loss_cpu\" not implemented for 'BFloat16'", "set trainer.precision=32"),
    (["trainer.precision=12"], "Precision 12 is invalid", "setting of trainer"),
    (["trainer.strategy=nonsense"], "strategy='nonsense'", "setting of trainer"),
    (["+trainer.nonsense=1"], "Trainer has no setting nonsense", "remove it"),
    (["+model.decoder.nonsense=1"], "unexpected keyword argument 'nonsense'", "remove the setting"),
    (["data=tarred"], "tarred_audio_filepaths", "model.train_ds.tarred_audio_filepaths=VALUE"),
    (["model_target=os.system"], "os.system", "set model_target to a class of NeMo"),
    (["model_target=nemo.collections.asr.models.Nothing"], "does not contain the class", "model_target="),
    (["model_target=nemo.collections.asr.models.EncDecRNNTModel"], "'joint'", "choose a recipe for this class"),
    (["model.validation_ds.manifest_filepath=null"], "model.validation_ds.manifest_filepath", "add "),
    (["+exp_manager.nonsense=1"], "ExpManagerConfig has no setting nonsense", "remove it"),
    (["+trainer.max_time=abc"], "Timer(duration='abc')", "setting of trainer"),
    (["model.train_ds.num_workers=-1"], "num_workers option should be non-negative", "setting of model.train_ds"),
    (["exp_manager.exp_dir=/proc/x"], "No such file or directory: '/proc/x'", "path"),
    (["trainer.val_check_interval=1000"], "`val_check_interval` (1000)", "setting of trainer"),
]
SLOW = {"trainer.val_check_interval=1000", "trainer.strategy=nonsense", "+trainer.max_time=abc"}


@pytest.mark.parametrize(
    "settings, cause, remedy",
    [pytest.param(*row, id=row[0][0], marks=[pytest.mark.slow] if row[0][0] in SLOW else []) for row in SETTINGS],
)
def test_a_wrong_setting_is_one_line_with_its_cause_and_its_remedy(settings, cause, remedy, given, capsys):
    assert main(["train", "squeezeformer_ctc_char", *given, *settings]) == 2
    line = last_line(capsys)
    assert cause in line and remedy in line


@pytest.mark.parametrize(
    "setting, message",
    [
        ("model.train_ds.batch_size=abc", "model.train_ds.batch_size=abc is not a number"),
        ("trainer.accumulate_grad_batches=abc", "trainer.accumulate_grad_batches=abc is not a number"),
        ("trainer.accumulate_grad_batches=${nope}", "'nope'"),
        ("schedule.peak_lr=abc", "schedule.peak_lr=abc"),
        ("+model.train_ds.bucket_batch_size=8", "model.train_ds.bucket_batch_size=8 is not a list"),
    ],
)
def test_a_recipe_that_cannot_be_printed_is_one_line(setting, message, given, capsys):
    assert main(["train", "squeezeformer_ctc_char", *given, setting, "--print"]) == 2
    assert message in last_line(capsys)


def last_line(capsys) -> str:
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(BEGIN)
    return line


def test_verbose_shows_the_traceback(given):
    with pytest.raises(Exception, match="n_heads=5 must divide d_model=32") as raised:
        main(["train", "squeezeformer_ctc_char", *given, "model.encoder.n_heads=5", "--verbose"])
    assert type(raised.value).__name__ == "InstantiationException"


def test_recordings_with_several_channels_beside_recordings_with_one_are_named(given, tmp_path, capsys):
    import json

    import soundfile

    manifest = write_manifest(tmp_path, utterances=4)
    soundfile.write(tmp_path / "train_0.wav", 0.1 * torch.randn(16_000, 2).numpy(), 16_000)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row | {"duration": 1.0}) + "\n" for row in rows))
    settings = [f"model.train_ds.manifest_filepath={manifest}", "model.train_ds.batch_size=4", "--skip-audio-check"]
    assert main(["train", "squeezeformer_ctc_char", *given, *settings]) == 2
    assert "channel_selector=average" in last_line(capsys)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_one_line(given, tmp_path):
    """The limit of the size of a file stands for a full disk."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    program = f"{limit}; import sys; from nemo_squeezeformer.__main__ import main; sys.exit(main(sys.argv[1:]))"
    settings = [*given, f"exp_manager.exp_dir={tmp_path}/exp"]
    command = [sys.executable, "-c", program, "train", "squeezeformer_ctc_char", *settings]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    line = process.stderr.splitlines()[-1]
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr[-3000:]
    assert line.startswith(BEGIN) and ("another exp_manager.exp_dir" in line or "another place" in line)


def raised(function) -> Exception:
    with pytest.raises(Exception) as error:
        function()
    return error.value


def no_memory() -> None:
    torch.empty(2**60)


def other_vocabulary() -> None:
    torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(2, 4).state_dict())


def wrong_locale() -> None:
    b"\xc3".decode("ascii")


def two_channels() -> None:
    torch.stack([torch.zeros(8, 2), torch.zeros(8)])


def full_disk() -> None:
    torch.save(torch.zeros(100_000), "/dev/full")


@pytest.mark.parametrize(
    "failure, remedy",
    [
        (no_memory, "a smaller model.train_ds.batch_size"),
        (other_vocabulary, "another vocabulary"),
        (wrong_locale, "PYTHONUTF8=1"),
        (two_channels, "channel_selector=average"),
        (full_disk, "another exp_manager.exp_dir"),
    ],
)
def test_errors_of_the_libraries_have_a_remedy(failure, remedy):
    line = causes.explain(raised(failure))
    assert remedy in line and "\n" not in line


@pytest.mark.parametrize(
    "message, is_memory",
    [
        ("could not create a primitive", True),  # the whole message that PyTorch gives on a CPU
        ("could not execute a primitive", True),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
    ],
)
def test_an_operation_that_onednn_does_not_have_is_not_a_full_memory(message, is_memory):
    assert causes.is_out_of_memory(RuntimeError(message)) == is_memory


def test_the_cause_is_found_behind_the_exceptions_that_it_led_to():
    def wrapped() -> None:
        try:
            raise UserError("n_heads=0: give 1 or more")
        except UserError as error:
            raise RuntimeError("building the model failed") from error

    assert causes.explain(raised(wrapped)) == "n_heads=0: give 1 or more"


def test_an_unknown_error_keeps_its_traceback(given, monkeypatch):
    """A traceback is needed to correct an error of this package or of a library."""

    def broken(*_) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("nemo_squeezeformer.training.recipes.build", broken)
    with pytest.raises(IndexError):
        main(["train", "squeezeformer_ctc_char", *given])
    assert causes.explain(KeyError("loss")) == causes.explain(AssertionError()) == ""
    assert causes.explain(raised(lambda: OmegaConf.create({"a": "???"}).a)).endswith("model.a=VALUE")


def test_a_long_error_of_a_library_is_shortened_to_one_line():
    line = causes.one_line("word\n" * 1000)
    assert len(line) == causes.LONGEST and line.endswith("…") and "\n" not in line
