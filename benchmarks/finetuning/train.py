"""The trainings of a question: from a file and from random weights, with equal networks, data and steps."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import training
from benchmarks.measuring.claims import claim

FINE_TUNED, FROM_RANDOM = "fine-tuned", "from random weights"


def train(args: argparse.Namespace) -> None:
    """Train the model of ``args.start`` in both ways with each seed, and append a line of JSON for each training."""
    task, results = training.prepared(args)
    ways: list[tuple[str, float | None]] = [(FINE_TUNED, args.rate), *((FROM_RANDOM, peak) for peak in args.peaks)]
    for seed in range(args.seeds):
        for way, peak in ways:
            if claim(results, way, peak or 0.0, seed):
                row = {"question": args.name, "way": way, "seed": seed} | _trained(args.start, task, way, peak, seed)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def settings(task: training.Task, peak: float | None) -> list[str]:
    """Return the overrides of both ways: the same data, vocabulary, batches and number of steps."""
    rate = [f"model.optim.lr={peak}"] if peak else []
    run = [f"trainer.max_steps={task.steps}", "trainer.max_epochs=-1", "trainer.accelerator=cpu", "trainer.devices=1"]
    data = [each for each in training.data_settings(task.recordings, task.batch) if "log_prediction" not in each]
    return [*data, *run, *rate, f"model.tokenizer.dir={task.tokenizer}", "++model.log_prediction=false"]


def without_weights(cfg: Any) -> None:
    """Turn a recipe for fine-tuning into a recipe for the same network without weights. The recipe is changed."""
    from omegaconf import open_dict

    with open_dict(cfg):
        del cfg.init_from_nemo_model
        cfg.model.pop("optim_param_groups", None)
        cfg.fine_tuning.frozen_epochs = 0


def _trained(start: Path, task: training.Task, way: str, peak: float | None, seed: int) -> dict[str, Any]:
    import lightning.pytorch as lightning

    from nemo_squeezeformer.commands.training import start_from
    from nemo_squeezeformer.integration.callbacks.frozen_encoder import FrozenEncoder
    from nemo_squeezeformer.training import initial_weights, recipes
    from nemo_squeezeformer.training.settings import value

    with tempfile.TemporaryDirectory() as folder:
        cfg, words, _ = start_from.recipe_of(str(start), settings(task, peak), Path(folder))
        if way == FROM_RANDOM:
            without_weights(cfg)
        lightning.seed_everything(seed)
        losses, epochs = training.losses(), value(cfg, "fine_tuning.frozen_epochs")
        trainer = training.one_thread_trainer(task.steps, losses, *([FrozenEncoder(epochs)] if epochs else []))
        model = recipes.build(cfg, trainer)
        initial_weights.load(cfg, model)
        began, wall = time.process_time(), time.time()
        trainer.fit(model)
        seconds = time.process_time() - began, time.time() - wall
        row = training.outcome(training.Trained(model, losses.each, *seconds), task.recordings)
        return {"peak_lr": value(cfg, "model.optim.lr"), "start": words if way == FINE_TUNED else "", **row}
