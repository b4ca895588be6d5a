"""`nemo-squeezeformer train`: train NeMo's model with NeMo's trainer from a recipe and Hydra overrides."""

import argparse
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.commands.inputs import say
from nemo_squeezeformer.commands.training import dry_run, start_from
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.process import causes, signals
from nemo_squeezeformer.training import initial_weights, recipes, schedule
from nemo_squeezeformer.training.data import is_named
from nemo_squeezeformer.training.settings import value

# The variables in which torchrun, SLURM, MPI and Lightning count the processes and the machines.
RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
HELP = "train a model from a recipe"
EXAMPLE = """\
example:
  nemo-squeezeformer train squeezeformer_ctc_bpe size=xs model.tokenizer.dir=tokenizer \\
      model.train_ds.manifest_filepath=train.json model.validation_ds.manifest_filepath=dev.json \\
      model.train_ds.batch_size=32 trainer.max_epochs=100 exp_manager.exp_dir=results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("recipe", nargs="?", help="a recipe of this package (see --list), or a path to a YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="Hydra overrides: size=xs, trainer.devices=2, +key=value, ~key",
        metavar="key=value",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        help="fine-tune this model: a .nemo file, or the name of a pretrained model; the file gives the recipe",
    )
    parser.add_argument("--list", action="store_true", help="list recipes and sizes")
    parser.add_argument(
        "--print", action="store_true", help="print the composed recipe and the peak learning rate, and stop"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train a step on the longest and on the widest batch, say whether they fit into the memory, and stop",
    )
    parser.add_argument(
        "--skip-audio-check",
        action="store_true",
        help="do not open each audio file before training (default: compare each manifest row with the audio file)",
    )
    parser.add_argument(
        "--skip-text-check",
        action="store_true",
        help="do not compare the text of the manifests with the vocabulary and the frame rate before training",
    )
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error that ends the training")
    parser.add_argument("--device", help=argparse.SUPPRESS)  # an option of other commands, which users try here


def main(args: argparse.Namespace) -> int:
    if args.list:
        print(listing())
        return 0
    if args.device:
        raise UserError(f"--device {args.device}: the device of train is a setting: {device_settings(args.device)}")
    start, overrides = start_from.asked_for(args.start, args.recipe, args.overrides)
    if start is None:
        if args.recipe is None:
            raise UserError(f"no recipe is given; give one of {', '.join(recipes.recipes())}, or a path to a YAML file")
        return run(recipes.compose(args.recipe, overrides), args)
    with tempfile.TemporaryDirectory(prefix="nemo-squeezeformer-") as folder:  # for the tokenizer of the model
        cfg, words, differences = start_from.recipe_of(start, overrides, Path(folder))
        say(words)
        if args.dry_run:  # a training says the differences when it loads the weights
            for difference in differences:
                say(difference)
        return run(cfg, args)


def run(cfg: Any, args: argparse.Namespace) -> int:
    """Print, try or train a composed recipe, and return the exit status."""
    checks = {"audio_check": not args.skip_audio_check, "text_check": not args.skip_text_check}
    try:
        if args.print:
            print_recipe(cfg)
            return 0
        if args.dry_run:
            return dry_run.dry_run(cfg, **checks)
        train(cfg, **checks)
    except UserError:
        raise
    except Exception as error:
        line = "" if args.verbose else causes.explain(error)
        if not line:
            raise
        raise UserError(f"{line} (--verbose shows the traceback)") from error
    return 0


def print_recipe(cfg: Any) -> None:
    """Print a composed recipe and the line about its learning rate."""
    from omegaconf import OmegaConf

    print(OmegaConf.to_yaml(cfg))
    schedule.check(cfg)
    print(schedule.summary(cfg))


def device_settings(device: str) -> str:
    """Return the settings of the trainer for a name of PyTorch, such as ``cpu`` or ``cuda:1``."""
    kind, _, number = device.partition(":")
    return f"trainer.accelerator={kind}{f' trainer.devices=[{number}]' if number else ''}"


def listing() -> str:
    """Return the text of ``--list``: all recipes and sizes."""
    rows = ["recipes:", *(f"  {name}" for name in recipes.recipes())]
    rows += [
        "recipes from Conformer to Squeezeformer, step by step:",
        *(f"  {name}" for name in recipes.recipes(recipes.ABLATION)),
    ]
    rows.append("sizes:")
    for size in sizes().values():
        parameters = f"{size.published.encoder_parameters / 1e6:.1f} M" if size.published else "-"
        shape = f"d_model {size.d_model}, {size.n_layers} layers, {size.n_heads} heads"
        rows.append(f"  size={size.name:<5} {parameters:>8}  {shape}")
    return "\n".join(rows)


def train(cfg: Any, audio_check: bool = True, text_check: bool = True) -> Any:
    """Train a model as NeMo's example scripts do, and return the model.

    Args:
        cfg: a composed recipe. The setting ``model_target`` or ``model.target`` names the class of the model.
        audio_check: if True, compare every row of the manifests with the audio file of the row before training.
        text_check: if True, compare the text of the manifests with the vocabulary and the frame rate before training.

    Raises:
        UserError: see ``schedule.check`` and ``recipes.check``, which run before the model is built and a GPU is used,
            ``initial_weights.check``, and ``checkpoint_contents`` for the checkpoint of a resumed run.
    """
    recipes.target(cfg)
    recipes.check_names(cfg)
    schedule.check(cfg)
    shown = schedule.summary(cfg) if is_named(value(cfg, "model.train_ds")) else "no data to train on"
    on_main_process = all(int(os.environ.get(name, 0)) == 0 for name in RANKS)
    recipes.check(cfg, audio=audio_check and on_main_process, text=text_check and on_main_process)
    recipes.fill_labels(cfg)

    import lightning.pytorch as lightning
    from nemo.utils import logging
    from nemo.utils.exp_manager import exp_manager
    from nemo.utils.trainer_utils import resolve_trainer_cfg

    from nemo_squeezeformer.integration.callbacks import run_end
    from nemo_squeezeformer.integration.callbacks.stop_after_batch import (
        ended_by_signals,
        how_to_continue,
        is_out_of_time,
    )
    from nemo_squeezeformer.integration.resuming import checkpoint_contents, whole_checkpoints

    trainer = lightning.Trainer(**resolve_trainer_cfg(cfg.trainer))
    newest = whole_checkpoints.newest_of_run(trainer, value(cfg, "exp_manager") or {}, moves=on_main_process)
    log_dir = exp_manager(trainer, cfg.get("exp_manager", None))
    trainer.ckpt_path = str(newest) if newest else trainer.ckpt_path
    best = add_callbacks(trainer, cfg)
    model = recipes.build(cfg, trainer)
    resumed = str(trainer.ckpt_path or "")  # the checkpoint that exp_manager has chosen
    average = str(whole_checkpoints.average_of(Path(resumed))) if resumed else ""
    if resumed:
        checkpoint_contents.require_data(resumed)
        checkpoint_contents.require_data(average)
        checkpoint_contents.require_finite(resumed)
    else:
        initial_weights.load(cfg, model)
    schedule.keep_warm_up(model)
    logging.info(shown)
    resumable = bool(value(cfg, "exp_manager.resume_if_exists"))
    # NeMo loads the moving averages as PyTorch loads weights, but the file also has a configuration.
    with ended_by_signals(trainer, signals.current, resumable), checkpoint_contents.plain_objects(average):
        trainer.fit(model)
        signals.current.stop_putting_off()  # Ctrl-C ends a test at once
        if is_out_of_time(trainer):
            then = how_to_continue(trainer, resumable)
            logging.info(f"The time of exp_manager.max_time_per_run is over: {then}")
        elif is_named(value(cfg, "model.test_ds")) and model.prepare_test(trainer):
            if best is not None:
                best.load_into(trainer, model)
            trainer.ckpt_path = None  # otherwise, the test would load the checkpoint from which the run has resumed
            trainer.test(model)
    logging.info(run_end.words(trainer.checkpoint_callback, best, log_dir, value(cfg, "exp_manager", {})))
    return model


def add_callbacks(trainer: Any, cfg: Any) -> Any:
    """Add the callbacks of this package to a trainer. Return the callback of the best weights, or None."""
    from nemo_squeezeformer.integration.callbacks import (
        bad_data,
        best_weights,
        consistent_views,
        resumed_schedule,
        run_progress,
        transducer_loss,
    )
    from nemo_squeezeformer.integration.callbacks.doctor import attach
    from nemo_squeezeformer.integration.callbacks.frozen_encoder import FrozenEncoder
    from nemo_squeezeformer.integration.callbacks.resumed_averages import ResumedAverages

    best = best_weights.add_callback(trainer)
    run_progress.replace_bar(trainer, value(cfg, "exp_manager.checkpoint_callback_params.monitor", "val_wer"))
    bad_data.add_callbacks(trainer, stop_after=value(cfg, "bad_data.stop_after", 10))
    resumed_schedule.add_callback(trainer, value(cfg, "schedule.resumed", "keep"))
    if isinstance(cfg.get("doctor", {}), Mapping):  # null and 0 turn all warnings off
        attach.add_callbacks(trainer, value(cfg, "doctor", {}))
    transducer_loss.add_callback(trainer)
    consistent_views.add_callback(trainer, value(cfg, "consistency"))
    trainer.callbacks.append(ResumedAverages())
    if (epochs := value(cfg, "fine_tuning.frozen_epochs")) is not None:
        trainer.callbacks.insert(0, FrozenEncoder(epochs))
    return best
