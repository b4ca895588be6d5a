"""Tests of large data: tar files, NeMo's buckets and Lhotse's batches of seconds, with the planned number of steps."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import schedule, settings
from nemo_squeezeformer.training.data import SOURCES, manifest_files
from nemo_squeezeformer.training.global_batch import global_batch
from nemo_squeezeformer.training.recipes import check_names, compose
from tests.samples.model_types.model_type import SMALL
from tests.samples.speech import write_manifest

# Small buffers for a small data set.
FEW = ["batch_duration=8", "num_buckets=2", "bucket_buffer_size=16", "shuffle_buffer_size=16"]
FEW = [f"model.train_ds.{setting}" for setting in FEW] + ["trainer.val_check_interval=2"]
TRAIN = "model.train_ds.manifest_filepath"
TARS = "model.train_ds.tarred_audio_filepaths"


def write_shards(folder: Path, shards: int = 2, **speech) -> None:
    """Write the files of NeMo's script for tarred data.

    The files are audio_N.tar, sharded_manifests/manifest_N.json, and tarred_audio_manifest.json with all rows.
    """
    (folder / "sharded_manifests").mkdir(parents=True)
    rows = [json.loads(line) for line in write_manifest(folder, **speech).read_text().splitlines()]
    for shard in range(shards):
        with tarfile.open(folder / f"audio_{shard}.tar", "w") as tar:
            for row in rows[shard::shards]:
                tar.add(folder / row["audio_filepath"], row["audio_filepath"])
                row["shard_id"] = shard
        lines = "".join(json.dumps(row) + "\n" for row in rows[shard::shards])
        (folder / "sharded_manifests" / f"manifest_{shard}.json").write_text(lines)
    (folder / "tarred_audio_manifest.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def tarred(folder: Path) -> list[str]:
    write_shards(folder / "t")
    return [
        "data=tarred",
        f"{TRAIN}={folder}/t/tarred_audio_manifest.json",
        f"{TARS}='{folder}/t/audio__OP_0..1_CL_.tar'",
        "model.train_ds.batch_size=2",
        "trainer.max_epochs=2",
    ]


def buckets(folder: Path) -> list[str]:
    for name, seconds, utterances in (("a", 0.5, 5), ("b", 1.0, 4)):
        write_shards(folder / name, seconds=seconds, utterances=utterances)
    manifests = ",".join(f"['{folder}/{name}/tarred_audio_manifest.json']" for name in "ab")
    tars = ",".join(f"['{folder}/{name}/audio__OP_0..1_CL_.tar']" for name in "ab")
    return [
        "data=tarred",
        f"{TRAIN}=[{manifests}]",
        f"{TARS}=[{tars}]",
        "model.train_ds.batch_size=1",
        "model.train_ds.bucketing_batch_size=[3,2]",
        "trainer.max_epochs=2",
    ]


def lhotse(folder: Path) -> list[str]:
    return ["data=lhotse", f"{TRAIN}={write_manifest(folder)}", *FEW, "trainer.max_steps=5"]


def lhotse_tarred(folder: Path) -> list[str]:
    write_shards(folder / "t")
    return [
        "data=lhotse_tarred",
        f"{TRAIN}='{folder}/t/sharded_manifests/manifest__OP_0..1_CL_.json'",
        f"{TARS}='{folder}/t/audio__OP_0..1_CL_.tar'",
        *FEW,
        "trainer.max_steps=5",
    ]


def lhotse_shar(folder: Path) -> list[str]:
    from lhotse import CutSet
    from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoIterator

    (folder / "shar").mkdir()
    cuts = CutSet(LazyNeMoIterator(str(write_manifest(folder)))).to_eager()
    cuts.to_shar(folder / "shar", fields={"recording": "wav"}, shard_size=4)
    return [
        "data=lhotse_tarred",
        f"{TRAIN}=null",
        f"model.train_ds.shar_path={folder}/shar",
        *FEW,
        "trainer.max_steps=5",
    ]


def weighted_sets(folder: Path) -> list[str]:
    sets = ",".join(
        f"{{type:nemo,manifest_filepath:'{write_manifest(folder, name=name)}',weight:{weight}}}"
        for name, weight in (("one", 0.7), ("two", 0.3))
    )
    return ["data=lhotse", f"{TRAIN}=null", f"model.train_ds.input_cfg=[{sets}]", *FEW, "trainer.max_steps=5"]


def recipe(folder: Path, given: list[str]):
    dev_set = write_manifest(folder, utterances=2, name="dev")
    small = [setting for setting in SMALL if not setting.startswith("model.train_ds.batch_size")]
    given = [*small, *given, f"model.validation_ds.manifest_filepath={dev_set}", f"exp_manager.exp_dir={folder}/exp"]
    return compose("squeezeformer_ctc_char", given)


SLOW = ((buckets, 8), (lhotse_tarred, 5), (lhotse_shar, 5), (weighted_sets, 5))


@pytest.mark.parametrize(
    "data, steps", [(tarred, 8), (lhotse, 5), *(pytest.param(*run, marks=pytest.mark.slow) for run in SLOW)]
)
def test_a_run_on_large_data_has_the_planned_steps_and_is_validated_and_saved(tmp_path, data, steps):
    model = train(recipe(tmp_path, data(tmp_path)))
    scheduler = model._scheduler["scheduler"]
    assert model.trainer.global_step == scheduler.max_steps == steps
    assert scheduler.warmup_steps == 1
    assert "val_wer" in model.trainer.callback_metrics
    assert len(list((tmp_path / "exp").rglob("*.nemo"))) == 1 and list((tmp_path / "exp").rglob("*-last.ckpt"))


def test_the_data_option_does_not_change_the_model():
    plain = compose("squeezeformer_ctc_bpe", [])
    for data in ("tarred", "lhotse", "lhotse_tarred"):
        switched = compose("squeezeformer_ctc_bpe", [f"data={data}"])
        assert switched.model.train_ds != plain.model.train_ds
        for key in plain.model.keys() - {"train_ds"}:
            left, right = (OmegaConf.to_container(cfg.model, resolve=False)[key] for cfg in (switched, plain))
            assert left == right


def batch_of(folder: Path, given: list[str]) -> float:
    return global_batch(recipe(folder, given)).utterances


def test_the_global_batch_of_buckets_is_the_mean_of_their_batch_sizes(tmp_path):
    given = buckets(tmp_path)
    assert batch_of(tmp_path, given) == (3 + 2) / 2
    assert batch_of(tmp_path, [*given, "model.train_ds.bucketing_batch_size=2"]) == (4 + 2) / 2


def test_the_global_batch_of_seconds_uses_the_mean_length_and_the_quadratic_duration(tmp_path):
    given = [*lhotse(tmp_path), "model.train_ds.batch_duration=40", "schedule.mean_seconds=1"]
    plain = [*given, "model.train_ds.quadratic_duration=null"]
    assert batch_of(tmp_path, plain) == 40
    assert batch_of(tmp_path, [*plain, "schedule.mean_seconds=2"]) == 20
    assert batch_of(tmp_path, [*given, "model.train_ds.quadratic_duration=4"]) == 32
    assert batch_of(tmp_path, [*given, "model.train_ds.batch_size=9"]) == 9
    assert batch_of(tmp_path, [*given, "+model.train_ds.bucket_batch_size=[8,4]"]) == 6


@pytest.mark.parametrize("write", ["{0},{1}", "[{0},{1}]", "[[{0}],[{1}]]", "{folder}/shard__OP_0..1_CL_.json"])
def test_several_manifests_are_found_in_every_notation_of_nemo(tmp_path, write):
    paths = [str(tmp_path / f"shard_{i}.json") for i in range(2)]
    for path in paths:
        Path(path).write_text("")
    named = write.format(*paths, folder=tmp_path)
    cfg = recipe(tmp_path, [f"{TRAIN}={named if named.startswith('[') else repr(named)}"])
    assert list(manifest_files(settings.value(cfg, TRAIN))) == paths


@pytest.mark.parametrize(
    "data, change, message",
    [
        (lhotse, ["trainer.max_steps=-1"], r"set trainer.max_steps"),
        (lhotse, ["trainer.limit_train_batches=1.0"], r"trainer.limit_train_batches=1.0 .*data=lhotse"),
        (
            lhotse,
            ["trainer.devices=2", "trainer.use_distributed_sampler=true"],
            r"2 processes .*use_distributed_sampler",
        ),
    ],
)
def test_missing_settings_for_large_data_are_reported_with_a_remedy(tmp_path, data, change, message):
    schedule.check(recipe(tmp_path, data(tmp_path)))
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=message):
        schedule.check(recipe(tmp_path, [*data(tmp_path / "again"), *change]))


def test_lhotse_without_its_option_reports_the_missing_settings(tmp_path):
    given = [f"{TRAIN}={write_manifest(tmp_path)}", "+model.train_ds.use_lhotse=true"]
    with pytest.raises(UserError, match="set trainer.max_steps"):
        schedule.check(recipe(tmp_path, given))
    with pytest.raises(UserError, match="limit_train_batches=None .*data=lhotse"):
        schedule.check(recipe(tmp_path, [*given, "trainer.max_steps=9"]))


@pytest.mark.parametrize("source", SOURCES)
def test_lhotse_without_max_steps_is_refused_for_every_setting_that_names_data(tmp_path, source):
    given = ["data=lhotse", f"{TRAIN}=null", f"++model.train_ds.{source}=[x]"]
    with pytest.raises(UserError, match="set trainer.max_steps"):
        schedule.check(recipe(tmp_path, given))


@pytest.mark.parametrize("source", SOURCES[1:])
def test_data_can_be_named_by_other_settings_than_a_manifest(source):
    given = [*SMALL, "model.validation_ds=null", f"{TRAIN}=null"]
    check_names(compose("squeezeformer_ctc_char", [*given, f"++model.train_ds.{source}=[x]"]))
    with pytest.raises(UserError, match="model.train_ds.manifest_filepath is not set"):
        check_names(compose("squeezeformer_ctc_char", given))
