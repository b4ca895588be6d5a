"""`train --dry-run`: train a step on each of the two largest batches, and say whether they fit into the memory."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process.causes import LESS_MEMORY, is_out_of_memory
from nemo_squeezeformer.process.peak_memory import GIB, memory_of_machine
from nemo_squeezeformer.training import recipes, schedule
from nemo_squeezeformer.training.largest_batches import Shape, largest_batches, sample_rate
from nemo_squeezeformer.training.settings import value

# The steps of a dry run write nothing and validate nothing.
TRAINER = {
    "max_epochs": 1, "max_steps": 2, "devices": 1, "num_nodes": 1, "accumulate_grad_batches": 1,
    "limit_train_batches": 2, "limit_val_batches": 0, "overfit_batches": 0, "fast_dev_run": False,
    "val_check_interval": 1.0, "check_val_every_n_epoch": 1,
    "enable_progress_bar": False, "enable_checkpointing": False, "logger": False,
    "callbacks": None, "log_every_n_steps": 1,
}  # fmt: skip


def dry_run(cfg: Any, audio_check: bool = True, text_check: bool = True) -> int:
    """Print the time and the memory of a training step on the largest batches. Return 0 if they fit, otherwise 1.

    The utterances are noise, and their tokens are random. The weights and the state of the optimizer are in the memory,
    as in training.

    Args:
        cfg: a composed recipe.
        audio_check: if True, first compare every row of the manifests with the audio file of the row, as in training.
        text_check: if True, first compare the text of the manifests with the vocabulary and the frame rate.

    Raises:
        UserError: the recipe has an error, or its model is not a CTC model, a transducer or a hybrid.
    """
    recipes.target(cfg)
    recipes.check_names(cfg)
    schedule.check(cfg)
    recipes.check(cfg, audio=audio_check, text=text_check)
    recipes.fill_labels(cfg)

    import lightning.pytorch as lightning
    import torch
    from nemo.utils.trainer_utils import resolve_trainer_cfg
    from omegaconf import open_dict

    from nemo_squeezeformer.integration.callbacks import consistent_views, transducer_loss
    from nemo_squeezeformer.integration.callbacks.doctor.text_watch import needs_only_audio

    kind = recipes.model_class(cfg)
    if not needs_only_audio(kind):
        raise UserError(f"--dry-run: a model of class {kind.__name__} needs other batches; leave out --dry-run")
    shapes = largest_batches(cfg)
    with open_dict(cfg):
        cfg.trainer.update(TRAINER)
    measure = _measure()
    trainer = lightning.Trainer(**{**resolve_trainer_cfg(cfg.trainer), "callbacks": [measure]})
    consistent_views.add_callback(trainer, value(cfg, "consistency"))
    transducer_loss.add_callback(trainer)
    model = recipes.build(cfg, trainer)
    make = partial(batch_of, rate=sample_rate(cfg), vocabulary=_vocabulary(model))
    schedule.keep_warm_up(model)
    model._train_dl = torch.utils.data.DataLoader(shapes, batch_size=None, collate_fn=make)  # type: ignore[arg-type]
    try:
        trainer.fit(model)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        shape = shapes[len(measure.steps)]
        print(f"the {shape.name} batch does not fit ({words(shape)}): {LESS_MEMORY}")
        return 1
    print("\n".join(report(shapes, measure.steps, _memory(model.device))))
    return 0


def batch_of(shape: Shape, rate: int, vocabulary: int) -> tuple[Any, ...]:
    """Return a batch of noise with random tokens: samples (B, T), lengths (B,), tokens (B, U) and lengths (B,)."""
    import torch

    number, samples, tokens = shape.utterances, int(shape.seconds * rate), max(1, shape.tokens)
    return (
        0.1 * torch.randn(number, samples),
        torch.full((number,), samples),
        torch.randint(0, vocabulary, (number, tokens)),
        torch.full((number,), tokens),
    )


def words(shape: Shape) -> str:
    """Return a batch in words."""
    return f"{shape.utterances} x {shape.seconds:g} s with {shape.tokens} tokens, as {shape.place}"


def report(shapes: list[Shape], steps: list[tuple[float, int]], memory: int) -> list[str]:
    """Return the lines of the output.

    Args:
        steps: the seconds of each step, and the peak memory until the end of the step in bytes.
        memory: the whole memory of the device in bytes, or 0 if it is unknown.
    """
    lines = []
    for shape, (seconds, peak) in zip(shapes, steps, strict=True):
        of = f" of {memory / GIB:.1f}" if memory else ""
        lines.append(f"{shape.name:<8}{seconds:6.1f} s, peak memory {peak / GIB:.2f}{of} GiB: {words(shape)}")
    return [*lines, "both batches fit"]


def _measure() -> Any:
    from lightning.pytorch import Callback

    from nemo_squeezeformer.integration.callbacks.doctor.first_steps import peak_memory, wait

    class Measure(Callback):
        """The seconds and the peak memory of each step."""

        def __init__(self) -> None:
            self.steps: list[tuple[float, int]] = []
            self._started = 0.0

        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            wait(pl_module.device)
            self._started = time.monotonic()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            wait(pl_module.device)
            self.steps.append((time.monotonic() - self._started, peak_memory(pl_module.device)))

    return Measure()


def _vocabulary(model: Any) -> int:
    """Return the number of tokens without the blank; 1 if the model has no such decoder."""
    part = getattr(model, "joint", None) or getattr(model, "decoder", None)
    durations = getattr(part, "num_extra_outputs", 0)  # the outputs of a TDT model for durations
    return max(1, getattr(part, "num_classes_with_blank", 2) - durations - 1)


def _memory(device: Any) -> int:
    import torch

    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else memory_of_machine()
