"""The learning-rate schedule in steps: the paper's figures, NeMo's own arithmetic, and mistakes that must not pass."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from nemo.core.optim.lr_scheduler import NoamHoldAnnealing, compute_max_steps
from omegaconf import OmegaConf

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import schedule
from nemo_squeezeformer.training.epoch import count, manifest_files, optimiser_steps, processes
from nemo_squeezeformer.training.recipes import compose


def recipe(*overrides: str):
    return compose("squeezeformer_ctc_char", ["trainer.accelerator=cpu", "trainer.devices=1", *overrides])


def write_durations(path, durations):
    path.write_text(
        "".join(json.dumps({"audio_filepath": "a.wav", "duration": d, "text": "a"}) + "\n" for d in durations)
    )
    return path


@pytest.fixture
def hundred(tmp_path):
    """A manifest of 100 utterances of 36 s: one hour, within max_duration=40."""
    return write_durations(tmp_path / "hundred.json", [36.0] * 100)


def planned(manifest, *overrides: str) -> schedule.Plan:
    return schedule.plan(
        recipe(f"model.train_ds.manifest_filepath={manifest}", "model.train_ds.max_duration=40", *overrides)
    )


def test_librispeech_at_the_published_batch_gives_the_papers_epochs_and_learning_rate():
    made = schedule.plan(recipe("schedule.hours=960.9", "model.train_ds.batch_size=64", "trainer.devices=16"))
    assert (made.global_batch, made.steps_per_epoch, made.steps) == (1024, 275, 137_500)
    assert (made.warmup_steps, made.hold_steps) == (20 * 275, 160 * 275)
    assert made.peak_lr == 2e-3


def test_an_epoch_has_as_many_steps_as_nemo_counts():
    grid = itertools.product([1, 97, 1000], [1, 16], [1, 3], [1, 4], [False, True], [1.0, 0.3, 5])
    for utterances, batch, number, accumulate, drop_last, limit in grid:
        nemos = compute_max_steps(
            max_epochs=1,
            accumulate_grad_batches=accumulate,
            limit_train_batches=limit,
            num_workers=number,
            num_samples=utterances,
            batch_size=batch,
            drop_last=drop_last,
        )
        assert optimiser_steps(utterances, batch, number, accumulate, drop_last, limit) == nemos


def test_nemos_scheduler_reaches_the_peak_holds_and_decays_where_planned(hundred):
    made = planned(hundred, "model.train_ds.batch_size=10", "trainer.max_epochs=50")
    assert (made.steps, made.warmup_steps, made.hold_steps) == (500, 20, 160)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=made.peak_lr)
    noam = NoamHoldAnnealing(
        optimiser, max_steps=made.steps, warmup_steps=made.warmup_steps, hold_steps=made.hold_steps, decay_rate=1.0
    )
    rates = []
    for _ in range(made.steps + 1):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        noam.step()
    assert rates[10] < rates[19] < made.peak_lr
    assert rates[20:181] == pytest.approx([made.peak_lr] * 161)
    assert rates[181] < 0.99 * made.peak_lr
    assert rates[500] == pytest.approx(made.peak_lr * 20 / 340)


def test_a_smaller_batch_takes_the_square_root_and_a_larger_one_no_more_than_published(hundred):
    assert planned(hundred, "model.train_ds.batch_size=64").peak_lr == pytest.approx(2e-3 / 4)
    assert planned(hundred, "model.train_ds.batch_size=4096").peak_lr == 2e-3
    assert planned(hundred, "model.train_ds.batch_size=16", "trainer.accumulate_grad_batches=4").peak_lr == 2e-3 / 4
    assert planned(hundred, "size=l", "model.train_ds.batch_size=512").peak_lr == 5e-4 / 2


def test_phases_given_in_epochs_are_taken_as_given(hundred):
    made = planned(hundred, "schedule.warmup_epochs=2", "schedule.hold_epochs=0.5", "model.train_ds.batch_size=10")
    assert (made.warmup_steps, made.hold_steps) == (20, 5)


def test_a_run_of_max_steps_needs_no_data_and_ends_at_the_nearer_end(hundred):
    assert planned("/not/there.json", "trainer.max_steps=1000").warmup_steps == 40
    assert planned(hundred, "trainer.max_steps=1000", "trainer.max_epochs=2").steps == 14
    assert planned(hundred, "trainer.max_steps=10", "trainer.max_epochs=2").steps == 10


def test_even_one_step_has_a_warm_up_because_noam_needs_one(hundred):
    made = planned(hundred, "trainer.max_steps=1")
    assert (made.warmup_steps, made.hold_steps) == (1, 0)


def test_numbers_written_by_the_user_win(hundred):
    made = planned(hundred, "model.optim.lr=0.01", "model.optim.sched.warmup_steps=7", "model.optim.sched.hold_steps=9")
    assert (made.peak_lr, made.warmup_steps, made.hold_steps) == (0.01, 7, 9)
    cfg = recipe("schedule.hours=1", "model.train_ds.manifest_filepath=x.json", "model.optim.sched.warmup_ratio=0.1")
    assert cfg.model.optim.sched.warmup_steps is None  # NeMo refuses steps beside a ratio


def test_a_recipe_without_data_resolves_and_has_no_steps_yet():
    resolved = OmegaConf.to_container(recipe(), resolve=True)
    assert resolved["model"]["optim"]["sched"]["warmup_steps"] is None
    assert resolved["model"]["optim"]["lr"] == 2.5e-4
    assert resolved["trainer"]["sync_batchnorm"] is False
    assert OmegaConf.to_container(recipe("model.train_ds=null"), resolve=True)["model"]["optim"]["lr"] is None


def test_registering_twice_changes_nothing():
    schedule.register()
    schedule.register()
    assert recipe("trainer.max_steps=100").model.optim.sched.hold_steps == 32


def test_utterances_outside_nemos_limits_of_duration_are_not_counted(tmp_path):
    manifest = write_durations(tmp_path / "m.json", [0.05, 0.1, 5.0, 16.7, 16.8])
    assert count(str(manifest), 0.1, 16.7) == (3, pytest.approx(21.8))
    assert count(str(manifest), None, None)[0] == 5
    assert planned(manifest, "+model.train_ds.max_utts=2").utterances == 2


@pytest.mark.parametrize("write", ["{0},{1}", "[{0},{1}]", "[[{0}],[{1}]]", "{folder}/shard__OP_0..1_CL_.json"])
def test_several_manifests_are_counted_however_nemo_lets_them_be_written(tmp_path, write):
    paths = [write_durations(tmp_path / f"shard_{i}.json", [1.0] * (i + 1)) for i in range(2)]
    named = write.format(*paths, folder=tmp_path)
    named = named if named.startswith("[") else f"'{named}'"
    cfg = recipe(f"model.train_ds.manifest_filepath={named}")
    assert schedule.plan(cfg).utterances == 3
    assert list(manifest_files(schedule.value(cfg, "model.train_ds.manifest_filepath"))) == [
        str(path) for path in paths
    ]


@pytest.mark.parametrize("devices, number", [(2, 2), ("'3'", 3), ("auto", 1)])
def test_cpu_processes_are_counted_as_lightning_starts_them(hundred, devices, number):
    assert planned(hundred, f"trainer.devices={devices}", "trainer.num_nodes=2").global_batch == 16 * 2 * number


def test_devices_that_lightning_refuses_are_named():
    with pytest.raises(UserError, match=r"trainer.devices=-1 .*trainer.devices=auto"):
        processes("cpu", -1)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["schedule.warmup_epochs=9", "schedule.hold_epochs=9", "trainer.max_epochs=10"],
            r"63 steps.*exceed.*70 steps",
        ),
        (["trainer.accumulate_grad_batches=0"], r"global batch is 0.*accumulate_grad_batches=0"),
        (["model.train_ds.batch_size=0"], r"global batch is 0.*batch_size=0"),
        (["model.train_ds.manifest_filepath=/not/there.json"], r"/not/there.json.*schedule.hours"),
        (["model.train_ds.manifest_filepath=null"], r"manifest_filepath=None.*schedule.hours"),
        (["schedule.hours=-1"], r"schedule.hours=-1"),
        (["trainer.max_epochs=-1"], r"never end"),
        (["model.train_ds.max_duration=1"], r"0 utterances.*max_duration"),
        (["schedule.peak_lr=0"], r"schedule.peak_lr=0.*size=s"),
    ],
)
def test_values_that_contradict_each_other_are_named_with_a_remedy(hundred, overrides, message):
    with pytest.raises(UserError, match=message):
        planned(hundred, *overrides)


def test_lhotses_batches_of_seconds_count_as_utterances_of_the_mean_length():
    made = schedule.plan(
        recipe(
            "schedule.hours=123",
            "schedule.mean_seconds=10",
            "+model.train_ds.batch_duration=200",
            "model.train_ds.batch_size=null",
        )
    )
    assert (made.global_batch, made.steps_per_epoch) == (20, math.ceil(44280 / 20))
