"""The training of small encoders under equal conditions on one CPU thread, and the results of the training."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.measuring.recordings import Recordings, rows


class Task(NamedTuple):
    """A training task: ``steps`` optimizer steps with ``batch`` recordings each."""

    recordings: Recordings
    tokenizer: Path
    steps: int
    batch: int


class Trained(NamedTuple):
    """A trained model, the loss of each step, and the duration of the training."""

    model: Any
    losses: list[float]
    cpu_seconds: float
    wall_seconds: float


def prepared(args: argparse.Namespace) -> tuple[Task, Path]:
    """Return the task and the file of results of a command line. Make the tokenizer, and set one thread."""
    import torch
    from nemo.utils import logging

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer = args.work / f"tokenizer-{args.name}-{args.vocabulary}"
    task = Task(Recordings(args.train, args.dev, dict(args.test)), tokenizer, args.steps, args.batch)
    make_tokenizer(task, args.vocabulary)
    return task, args.output / f"{args.name}.jsonl"


def make_tokenizer(task: Task, vocabulary: int) -> None:
    """Train the tokenizer of the task if its folder has no tokenizer yet."""
    from nemo_squeezeformer.commands.tokenizer import train_tokenizer

    if not (task.tokenizer / "tokenizer.model").exists():
        train_tokenizer([str(path) for path in task.recordings.train], vocabulary, str(task.tokenizer))


def data_settings(recordings: Recordings, batch: int) -> list[str]:
    """Return the overrides for the data of a recipe.

    A batch has recordings of similar length, and the data loader starts no worker processes.
    """
    return [
        f"model.train_ds.manifest_filepath=[{','.join(map(str, recordings.train))}]",
        f"model.validation_ds.manifest_filepath={recordings.dev}",
        f"model.train_ds.batch_size={batch}",
        "model.train_ds.num_workers=0",
        "model.validation_ds.num_workers=0",
        "+model.train_ds.use_semi_sorted_batching=true",
        "+model.train_ds.randomization_factor=0.2",
        "+model.train_ds.drop_last=false",
        "model.log_prediction=false",
    ]


def schedule(steps: int, peak: float) -> dict[str, Any]:
    """Return the configuration of NeMo's cosine schedule. The warm-up takes a tenth of the steps."""
    return {"name": "CosineAnnealing", "warmup_steps": steps // 10, "max_steps": steps, "min_lr": peak / 50}


def model_config(encoder: dict[str, Any], task: Task, peak: float) -> Any:
    """Return the model configuration of this project's CTC recipe with the given encoder."""
    from omegaconf import OmegaConf, open_dict

    from nemo_squeezeformer.training.recipes import compose

    cfg = compose(
        "squeezeformer_ctc_bpe",
        [
            "size=tiny",
            f"model.tokenizer.dir={task.tokenizer}",
            f"trainer.max_steps={task.steps}",
            *data_settings(task.recordings, task.batch),
        ],
    )
    cfg = OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True))
    with open_dict(cfg):
        cfg.encoder = encoder
        cfg.optim.lr, cfg.optim.weight_decay = peak, 0.001
        cfg.optim.sched = schedule(task.steps, peak)
    return cfg


def losses() -> Any:
    """Return a callback that keeps the training loss of each step in its list ``each``."""
    import lightning.pytorch as lightning

    class Losses(lightning.Callback):
        """The training loss of each step."""

        def __init__(self) -> None:
            self.each: list[float] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.each.append(float(outputs["loss"]))

    return Losses()


def one_thread_trainer(steps: int, *callbacks: Any) -> Any:
    """Return a Lightning trainer for ``steps`` steps on the CPU, without logs, checkpoints and validation."""
    import lightning.pytorch as lightning

    return lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )


def train(encoder: dict[str, Any], task: Task, peak: float, seed: int) -> Trained:
    """Train NeMo's CTC model with the given encoder for ``task.steps`` steps."""
    import lightning.pytorch as lightning
    from nemo.collections.asr.models import EncDecCTCModelBPE

    noted = losses()
    lightning.seed_everything(seed)
    trainer = one_thread_trainer(task.steps, noted)
    model = EncDecCTCModelBPE(cfg=model_config(encoder, task, peak), trainer=trainer)
    began, wall = time.process_time(), time.time()
    trainer.fit(model)
    return Trained(model, noted.each, time.process_time() - began, time.time() - wall)


def outcome(trained: Trained, recordings: Recordings) -> dict[str, Any]:
    """Return the results of a training: mean losses by tenths of the run, word error rates in percent, and seconds."""
    import torch

    tenth = max(1, len(trained.losses) // 10)
    by_tenths = [mean(trained.losses[i * tenth : (i + 1) * tenth]) for i in range(10)]
    finite = all(torch.isfinite(weight).all() for weight in trained.model.parameters()) and math.isfinite(by_tenths[-1])
    wer = word_error_rates(trained.model, {"dev": recordings.dev, **recordings.tests}) if finite else {}
    return {
        "steps": len(trained.losses),
        "loss": [round(value, 4) for value in by_tenths],
        "wer": {name: round(rate, 2) for name, rate in wer.items()},
        "cpu_seconds": round(trained.cpu_seconds, 1),
        "wall_seconds": round(trained.wall_seconds, 1),
        "finite": finite,
    }


def word_error_rates(model: Any, manifests: dict[str, Path]) -> dict[str, float]:
    """Return the word error rate on each manifest, in percent, by the name of the manifest."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    rates = {}
    model.eval()
    for name, manifest in manifests.items():
        spoken = rows(manifest)
        audio = [row["audio_filepath"] for row in spoken]
        texts = [hypothesis.text for hypothesis in model.transcribe(audio, batch_size=16, verbose=False, num_workers=0)]
        rates[name] = 100 * word_error_rate(texts, [row["text"] for row in spoken])
    return rates
