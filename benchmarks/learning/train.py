"""One training of the bench: a network, a change of the recipe and a seed give one line of results."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.learning.changes import CHANGES, UNCHANGED
from benchmarks.learning.encoders import ENCODERS
from benchmarks.measuring import machine, training
from benchmarks.measuring.recordings import Recordings

PARTS = 10  # a training is validated after each tenth of its steps


@dataclass(frozen=True)
class Run:
    """A training of the bench. The fields identify it in the file of results.

    Attributes:
        encoder: a name in ``ENCODERS``.
        change: a name in ``CHANGES``.
        peak: the peak learning rate.
        seed: the seed of the initial weights, of the order of the data and of the augmentation.
        steps: the number of optimizer steps, before the change divides it. The learning rate falls to almost zero at
            the last step.
        batch: the number of utterances in a batch, before the change divides it.
    """

    encoder: str
    change: str = UNCHANGED
    peak: float = 1.5e-3
    seed: int = 0
    steps: int = 1000
    batch: int = 16

    def same(self, row: dict[str, Any]) -> bool:
        """Return True if ``row`` is the line of results of this training."""
        return all(row[key] == value for key, value in asdict(self).items())

    @property
    def updates(self) -> int:
        """Return the number of optimizer steps."""
        return self.steps // CHANGES[self.change].fewer_steps

    @property
    def utterances(self) -> int:
        """Return the number of utterances in a batch."""
        return self.batch // CHANGES[self.change].fewer_utterances

    @property
    def name(self) -> str:
        """Return a name for files of this training."""
        words = "-".join(map(str, asdict(self).values()))
        return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in words)


def train(run: Run, recordings: Recordings, tokenizer: Path, checkpoint: Path) -> dict[str, Any]:
    """Train a model, or continue the training of a stopped process, and return the line of results.

    Args:
        run: the training.
        recordings: the data.
        tokenizer: the folder of the tokenizer.
        checkpoint: the file for the state of an unfinished training. It is deleted at the end.
    """
    import lightning.pytorch as lightning

    from nemo_squeezeformer.integration.callbacks import consistent_views
    from nemo_squeezeformer.integration.exact_resume import ExactResume
    from nemo_squeezeformer.training import recipes

    commit = machine.commit()
    lightning.seed_everything(run.seed)
    cfg = recipe(run, recordings, tokenizer)
    curve = _curve(checkpoint)
    trainer = lightning.Trainer(
        max_steps=run.updates,
        accelerator="cpu",
        devices=1,
        gradient_clip_val=cfg.trainer.gradient_clip_val,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=run.updates // PARTS,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[curve, ExactResume(run.seed)],
    )
    consistent_views.add_callback(trainer, cfg.get("consistency"))
    model = recipes.build(cfg, trainer)
    trainer.fit(model, ckpt_path=str(checkpoint) if checkpoint.exists() else None)
    finite = all(bool(weight.isfinite().all()) for weight in model.parameters())
    tests = training.word_error_rates(model, recordings.tests) if finite else {}
    checkpoint.unlink(missing_ok=True)
    return asdict(run) | {
        "commit": commit,
        "versions": machine.versions(),
        "parameters": sum(weight.numel() for weight in model.encoder.parameters()),
        "loss": curve.losses,
        "dev": curve.rates,
        "test": {name: round(rate, 2) for name, rate in tests.items()},
        "finite": finite,
        "cpu_seconds": round(curve.seconds),
    }


def recipe(run: Run, recordings: Recordings, tokenizer: Path) -> Any:
    """Return the recipe of a training: this project's CTC recipe with the encoder and the change of ``run``."""
    from omegaconf import OmegaConf, open_dict

    from nemo_squeezeformer.training.recipes import compose

    cfg = compose(
        "squeezeformer_ctc_bpe",
        [
            "size=tiny",
            "sched=cosine",
            f"model.tokenizer.dir={tokenizer}",
            f"trainer.max_steps={run.updates}",
            "trainer.max_epochs=-1",
            f"model.optim.lr={run.peak}",
            "model.optim.sched.warmup_ratio=0.1",
            *training.data_settings(recordings, run.utterances),
            *CHANGES[run.change].recipe,
        ],
    )
    with open_dict(cfg):
        OmegaConf.resolve(cfg)
        cfg.model.encoder = ENCODERS[run.encoder] | CHANGES[run.change].encoder
    return cfg


def _curve(checkpoint: Path) -> Any:
    """Return a callback that notes the curves of a training and saves the training after each validation."""
    import lightning.pytorch as lightning

    class Curve(lightning.Callback):
        """The mean loss and the word error rate in percent of each part of the training, and its processor seconds."""

        def __init__(self) -> None:
            self.losses: list[float] = []
            self.rates: list[float] = []
            self.seconds = 0.0
            self.since = time.process_time()
            self.each: list[float] = []

        def state_dict(self) -> dict[str, Any]:
            return {"losses": self.losses, "rates": self.rates, "seconds": self.seconds}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.losses, self.rates, self.seconds = (state_dict[key] for key in ("losses", "rates", "seconds"))

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.since = time.process_time()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.each.append(float(outputs["loss"]))

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if not self.each:  # a resumed training first repeats the validation after which it was saved
                return
            self.losses.append(round(mean(self.each), 4))
            self.rates.append(round(100 * float(trainer.callback_metrics["val_wer"]), 2))
            self.each = []
            self.seconds, self.since = self.seconds + time.process_time() - self.since, time.process_time()
            print(
                f"{checkpoint.stem}: step {trainer.global_step}, loss {self.losses[-1]}, dev {self.rates[-1]} %",
                flush=True,
            )
            if trainer.global_step < trainer.max_steps:
                trainer.save_checkpoint(checkpoint)

    return Curve()
