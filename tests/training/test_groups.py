"""Tests of the groups ``optim``, ``sched`` and ``augment``: each choice composes, trains, and is named by errors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from itertools import cycle

import lightning.pytorch as lightning
import pytest
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.training import groups, recipes, schedule
from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types.model_type import SMALL, spoken
from tests.samples.speech import write_noises

OPTIMIZERS, SCHEDULES = list(groups.choices("optim")), list(groups.choices("sched"))
AUGMENTATIONS = ["none", "speed", "noise", "voices"]
DATA = ["model.train_ds.manifest_filepath=t.json", "model.validation_ds.manifest_filepath=t.json"]
CPU = ["trainer.accelerator=cpu", "trainer.devices=1"]
PAPER = {"name": "adamw", "betas": [0.9, 0.98], "weight_decay": 4e-5}
CANARY = {"name": "adamw", "betas": [0.9, 0.98], "weight_decay": 1e-3}
WARM_UP = {"warmup_steps": None, "warmup_ratio": 0.04}
NOAM_HOLD = {"name": "NoamHoldAnnealing", **WARM_UP, "hold_steps": None, "hold_ratio": 0.32}
NOAM_HOLD |= {"decay_rate": 1.0, "min_lr": 1e-5}
INVERSE_SQRT = {"name": "InverseSquareRootAnnealing", **WARM_UP, "min_lr": 1e-6}
SMALL_DATA = [f"squeezeformer_{name}_small" for name in ("ctc_char", "ctc_bpe", "transducer_bpe")]
# The default optimizer of the recipes that do not have the optimizer and the schedule of the paper.
OWN = {
    **dict.fromkeys(SMALL_DATA, {**PAPER, "lr": 0.002, "weight_decay": 0.001, "sched": NOAM_HOLD}),
    "squeezeformer_aed": {**CANARY, "lr": 3e-4, "sched": INVERSE_SQRT},
    "squeezeformer_transformer": {**CANARY, "lr": 3e-4, "sched": INVERSE_SQRT},
    "squeezeformer_ssl": {**CANARY, "lr": 1.4e-3, "sched": INVERSE_SQRT},
    "squeezeformer_nest": {**CANARY, "lr": 1.4e-3, "sched": INVERSE_SQRT},
    "squeezeformer_sortformer": {**CANARY, "lr": 1e-4, "sched": INVERSE_SQRT},
}


def resolved(recipe: str, *overrides: str) -> dict:
    cfg = compose(recipe, [*DATA, *CPU, "trainer.max_steps=100", *overrides])
    schedule.check(cfg)
    return OmegaConf.to_container(cfg.model.optim, resolve=True)


def slow_unless(fast: Iterable[str], names: list[str]) -> list:
    """Return the names as parameters of a test. The names that are not in ``fast`` run in the slow lane."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("recipe", slow_unless([*OWN, "squeezeformer_ctc_char"], recipes.recipes()))
def test_the_default_choices_are_the_settings_of_the_paper_or_of_nemo(recipe):
    found = resolved(recipe)
    expected = OWN.get(recipe) or {**PAPER, "lr": found["lr"], "sched": NOAM_HOLD}
    assert found == expected
    if recipe not in OWN:
        assert found["lr"] == schedule.peak_lr(compose(recipe, [*DATA, *CPU, "trainer.max_steps=100"]))


@pytest.mark.slow
def test_every_optimizer_composes_with_every_schedule():
    for optimizer in OPTIMIZERS:
        for sched in SCHEDULES:
            found = resolved("squeezeformer_ctc_char", f"optim={optimizer}", f"sched={sched}")
            assert found.pop("sched").keys() == groups.choices("sched")[sched].keys()
            assert found["name"] == groups.choices("optim")[optimizer].get("name", "adamw")
            assert found["lr"] > 0


@pytest.mark.parametrize("recipe", ["squeezeformer_ctc_char_small", "squeezeformer_ssl"])
def test_a_choice_replaces_all_settings_of_a_recipe_with_another_default(recipe, tmp_path):
    (tmp_path / "noise.json").write_text("")
    noise = f"{groups.NOISE}={tmp_path}/noise.json"
    for optimizer, sched, change in zip(["sgd", "adafactor", "adamw"], SCHEDULES[1:], AUGMENTATIONS[1:]):
        given = [f"optim={optimizer}", f"sched={sched}", f"augment={change}", *[noise] * (change == "noise")]
        other = resolved("squeezeformer_ctc_char", *given)
        found = resolved(recipe, *given)
        if "lr" in groups.choices("optim")[optimizer] and isinstance(groups.choices("optim")[optimizer]["lr"], float):
            assert found == other
        else:
            assert found.keys() == other.keys() and found["sched"] == other["sched"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes.every_recipe())
def test_every_recipe_accepts_every_choice(recipe):
    for optimizer, sched in zip(OPTIMIZERS, cycle(SCHEDULES)):
        assert resolved(recipe, f"optim={optimizer}", f"sched={sched}")["lr"] > 0


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """Return a small CTC model and a small transducer, with the recipes and the data of the models."""
    folder = tmp_path_factory.mktemp("families")
    given = [*SMALL, *spoken(folder), "trainer.max_steps=2", "model.encoder.n_layers=2"]
    given += ["model.encoder.time_reduce_idx=null", "model.validation_ds=null"]
    found = {}
    for name in ("squeezeformer_ctc_char", "squeezeformer_transducer_char"):
        more = [*given, "model.loss.loss_name=pytorch"] if "transducer" in name else given
        found[name] = (build(compose(name, more)), more)
    return found


def steps(model, cfg, data: bool = False) -> list[float]:
    """Train for two steps with NeMo, and return the losses."""
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    losses: list[float] = []

    class Losses(lightning.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_steps=2, callbacks=[Losses()], **off)
    with open_dict(model.cfg):
        model.cfg.optim = OmegaConf.create(OmegaConf.to_container(cfg.model.optim, resolve=True))
    model.set_trainer(trainer)
    if data or model._train_dl is None:
        model.setup_training_data(OmegaConf.create(OmegaConf.to_container(cfg.model.train_ds, resolve=True)))
    trainer.fit(model)
    return losses


FAST = ("adafactor", "sgd")
EACH = [
    pytest.param(family, optimizer, sched, marks=[] if optimizer in FAST else pytest.mark.slow)
    for family in ("squeezeformer_ctc_char", "squeezeformer_transducer_char")
    for optimizer, sched in zip(OPTIMIZERS, cycle(SCHEDULES))
]


@pytest.mark.parametrize("family, optimizer, sched", EACH)
def test_each_optimizer_and_schedule_trains_through_nemo(families, family, optimizer, sched):
    model, given = families[family]
    cfg = compose(family, [*given, f"optim={optimizer}", f"sched={sched}"])
    schedule.check(cfg)
    before = [parameter.clone() for parameter in model.encoder.parameters()]
    losses = steps(model, cfg)
    assert len(losses) == 2 and all(map(float.__le__, losses, [1e4] * 2))
    assert any(not old.equal(new) for old, new in zip(before, model.encoder.parameters()))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


SLOW = pytest.mark.slow  # librosa, which changes the speed, needs 20 s for its first call


@pytest.mark.parametrize(
    "augmentation, data",
    [
        ("none", "plain"),
        pytest.param("speed", "plain", marks=SLOW),
        ("noise", "plain"),
        pytest.param("voices", "plain", marks=SLOW),
        ("speed", "lhotse"),
        ("noise", "lhotse"),
    ],
)
def test_each_augmentation_trains_with_plain_and_lhotse_data(families, tmp_path, augmentation, data):
    family = "squeezeformer_ctc_char"
    model, given = families[family]
    rows = [{"audio_filepath": path, "duration": 0.3} for path in write_noises(tmp_path)]
    (tmp_path / "noise.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = [f"{groups.NOISE}={tmp_path}/noise.json"] if augmentation == "noise" else []
    more += ["model.train_ds.num_buckets=1", "model.train_ds.batch_duration=4"] if data == "lhotse" else []
    given = [each for each in given if data == "plain" or "batch_size" not in each]
    cfg = compose(family, [*given, f"data={data}", f"augment={augmentation}", *more])
    schedule.check(cfg)
    assert len(steps(model, cfg, data=True)) == 2
    if data == "plain":
        pipeline = model._train_dl.dataset.featurizer.augmentor._pipeline
        assert len(pipeline) == {"none": 0, "voices": 4}.get(augmentation, 1)


@pytest.mark.parametrize(
    "override, named",
    [
        ("model.optim.name=sgd", "sgd does not have the settings betas of the recipe; use optim=sgd,"),
        ("model.optim.name=adafactor", "use optim=adafactor,"),
        ("model.optim.name=rprop", "use one of optim=adadelta"),
        ("model.optim.name=none", "NeMo has no optimizer none; use one of optim="),
        (
            "model.optim.sched.name=CosineAnnealing",
            "hold_ratio, hold_steps of the recipe; use sched=cosine,",
        ),
        ("model.optim.sched.name=NoamAnnealing", "use sched=inverse_sqrt,"),
        ("model.optim.sched.name=Cosine", "NeMo has no schedule Cosine; use one of sched=constant"),
    ],
)
def test_a_single_override_that_needs_other_settings_names_the_group(override, named):
    with pytest.raises(UserError) as error:
        resolved("squeezeformer_ctc_char", override)
    assert named in str(error.value) and "\n" not in str(error.value)
    cfg = compose("squeezeformer_ctc_char", [*DATA, *CPU, override])
    with pytest.raises(InterpolationResolutionError, match="use "):  # as in NeMo's own scripts
        OmegaConf.to_container(cfg.model.optim, resolve=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.optim.name=adam"],  # Adam takes the settings of AdamW
        ["model.optim.name=sgd", "~model.optim.betas"],
        ["optim=sgd", "model.optim.momentum=0.8", "+model.optim.dampening=0.1"],
        ["sched=cosine", "+model.optim.sched.constant_steps=10"],
    ],
    ids=" ".join,
)
def test_settings_that_fit_are_accepted(overrides):
    if "model.optim.name=sgd" in overrides:
        overrides = [*overrides, "sched=cosine"]
    resolved("squeezeformer_ctc_char", *overrides)


@pytest.mark.parametrize("recipe", slow_unless(["squeezeformer_sortformer"], recipes.recipes()))
def test_the_training_data_of_lhotse_is_shuffled(recipe):
    data = ["data=lhotse", "trainer.max_steps=100"]
    assert compose(recipe, [*DATA, *CPU, *data]).model.train_ds.shuffle is True


def test_noise_is_asked_for_by_name(tmp_path):
    with pytest.raises(UserError, match=r"^augment=noise needs a manifest .* add model.train_ds.augmentor.noise.manif"):
        resolved("squeezeformer_ctc_char", "augment=noise")
    with pytest.raises(UserError, match="there is no file /not/there.json"):
        resolved("squeezeformer_ctc_char", "augment=noise", f"{groups.NOISE}=/not/there.json")


def test_a_change_of_speed_is_refused_if_labels_belong_to_times():
    with pytest.raises(UserError, match="speed, which changes the length of the audio"):
        resolved("squeezeformer_frame_vad", "augment=speed")
    with pytest.raises(
        UserError, match="^recipe squeezeformer_sortformer: .*'augment': the recipe does not have this group$"
    ):
        resolved("squeezeformer_sortformer", "augment=speed")


def test_a_program_with_hydra_composes_the_groups(tmp_path):
    (tmp_path / "program.py").write_text(
        "import hydra\n"
        "@hydra.main(config_path='.', config_name='none', version_base=None)\n"
        "def main(cfg):\n"
        "    speed, optim = cfg.model.train_ds.augmentor.speed, cfg.model.optim\n"
        "    print(optim.name, optim.momentum, 'betas' in optim, speed.prob)\n"
        "    print(optim.sched.name, 'hold_ratio' in optim.sched)\n"
        "main()\n"
    )
    given = ["--config-name=squeezeformer_ctc_bpe", "optim=sgd", "sched=cosine", "augment=speed"]
    done = subprocess.run(
        [sys.executable, "program.py", *given, *CPU], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "sgd 0.9 False 1.0\nCosineAnnealing False"
