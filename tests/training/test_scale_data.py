"""Large data: tar files, NeMo's buckets, Lhotse's batches of seconds; the run is as long as was planned."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_squeezeformer.commands.train import train
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import schedule
from nemo_squeezeformer.training.epoch import bucket_batches, count
from nemo_squeezeformer.training.recipes import compose
from tests.model_types import SMALL
from tests.speech import write_manifest

FEW = ["batch_duration=8", "num_buckets=2", "bucket_buffer_size=16", "shuffle_buffer_size=16"]  # utterances, not 10,000
FEW = [f"model.train_ds.{setting}" for setting in FEW] + ["trainer.val_check_interval=2"]
TRAIN = "model.train_ds.manifest_filepath"
TARS = "model.train_ds.tarred_audio_filepaths"


def write_shards(folder: Path, shards: int = 2, **speech) -> None:
    """As NeMo's script does: audio_N.tar, sharded_manifests/manifest_N.json, and all in tarred_audio_manifest.json."""
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


@pytest.mark.parametrize(
    "data",
    [
        tarred,
        lhotse,
        *(pytest.param(data, marks=pytest.mark.slow) for data in (buckets, lhotse_tarred, lhotse_shar, weighted_sets)),
    ],
)
def test_a_run_on_large_data_takes_the_planned_steps_and_is_validated_and_saved(tmp_path, data):
    cfg = recipe(tmp_path, data(tmp_path))
    plan = schedule.plan(cfg)
    model = train(cfg)
    assert model.trainer.global_step == plan.steps
    scheduler = model._scheduler["scheduler"]
    assert (scheduler.max_steps, scheduler.warmup_steps) == (plan.steps, plan.warmup_steps)
    assert "val_wer" in model.trainer.callback_metrics
    assert len(list((tmp_path / "exp").rglob("*.nemo"))) == 1 and list((tmp_path / "exp").rglob("*-last.ckpt"))


def test_data_is_switched_by_one_word_which_leaves_the_model_as_it_was():
    plain = compose("squeezeformer_ctc_bpe", [])
    for data in ("tarred", "lhotse", "lhotse_tarred"):
        switched = compose("squeezeformer_ctc_bpe", [f"data={data}"])
        assert switched.model.train_ds != plain.model.train_ds
        for key in plain.model.keys() - {"train_ds"}:
            left, right = (OmegaConf.to_container(cfg.model, resolve=False)[key] for cfg in (switched, plain))
            assert left == right


def test_buckets_have_batches_of_their_own_sizes(tmp_path):
    buckets(tmp_path)
    named = [[f"{tmp_path}/{name}/tarred_audio_manifest.json"] for name in "ab"]
    assert bucket_batches(named, [3, 2], None, None) == 2 + 2
    assert bucket_batches(named, 2, None, None) == 2 + 2  # 4 and 2
    assert bucket_batches(named, [1, 1], 0.9, None) == 4
    assert count([[named[0][0], 0.7], [named[1][0], 0.3]], None, None)[0] == 9  # Lhotse's weights


def test_a_batch_of_seconds_holds_fewer_utterances_where_attention_is_counted(tmp_path):
    given = [*lhotse(tmp_path), "model.train_ds.batch_duration=40"]
    plain = schedule.plan(recipe(tmp_path, [*given, "model.train_ds.quadratic_duration=null"]))
    quadratic = schedule.plan(recipe(tmp_path, [*given, "model.train_ds.quadratic_duration=4"]))
    assert (plain.global_batch, quadratic.global_batch) == (40, 32)  # of one second
    assert schedule.plan(recipe(tmp_path, [*given, "model.train_ds.batch_size=9"])).global_batch == 9
    assert schedule.plan(recipe(tmp_path, [*given, "+model.train_ds.bucket_batch_size=[8,4]"])).global_batch == 6


@pytest.mark.parametrize(
    "data, change, message",
    [
        (lhotse, ["trainer.max_steps=-1"], r"set trainer.max_steps.*one pass over the data makes about \d"),
        (lhotse, ["trainer.limit_train_batches=1.0"], r"trainer.limit_train_batches=1.0 .*data=lhotse"),
        (
            lhotse,
            ["trainer.devices=2", "trainer.use_distributed_sampler=true"],
            r"2 processes .*use_distributed_sampler",
        ),
        (buckets, ["model.train_ds.bucketing_batch_size=[3,2,1]"], r"\[3, 2, 1\] has 3 sizes for 2 buckets"),
        (buckets, ["+model.train_ds.bucketing_weights=[1,2]"], r"bucketing_weights=\[1, 2\].*schedule.steps_per_epoch"),
    ],
)
def test_what_a_run_on_large_data_lacks_is_named_with_a_remedy(tmp_path, data, change, message):
    schedule.plan(recipe(tmp_path, data(tmp_path)))
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=message):
        schedule.plan(recipe(tmp_path, [*data(tmp_path / "again"), *change]))


def test_lhotse_chosen_without_its_group_is_told_what_else_it_needs(tmp_path):
    given = [f"{TRAIN}={write_manifest(tmp_path)}", "+model.train_ds.use_lhotse=true"]
    with pytest.raises(UserError, match="set trainer.max_steps"):
        schedule.plan(recipe(tmp_path, given))
    with pytest.raises(UserError, match="limit_train_batches=None .*data=lhotse"):
        schedule.plan(recipe(tmp_path, [*given, "trainer.max_steps=9"]))
