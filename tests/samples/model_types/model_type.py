"""``ModelType``, the requirements of a kind of model for a training of two steps, and the data for the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch

from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from nemo_squeezeformer.commands.train import train
from tests.samples.speech import write_manifest

COMMON_KEYS = """
    name model_target model.optim.name model.optim.lr model.optim.sched.name model.optim.sched.warmup_steps
    trainer.devices trainer.num_nodes trainer.max_epochs trainer.max_steps trainer.accelerator trainer.strategy
    trainer.accumulate_grad_batches trainer.gradient_clip_val trainer.precision trainer.sync_batchnorm
    exp_manager.exp_dir exp_manager.name exp_manager.checkpoint_callback_params.always_save_nemo
    exp_manager.resume_if_exists exp_manager.create_wandb_logger
"""
SPEECH_KEYS = """
    model.sample_rate model.preprocessor.features model.spec_augment.time_masks
    model.train_ds.manifest_filepath model.train_ds.batch_size
    model.validation_ds.manifest_filepath model.test_ds.manifest_filepath
    model.encoder.d_model model.encoder.subsampling_factor model.encoder.att_context_size
"""
SMALL = [
    "size=tiny",
    "model.encoder.d_model=32",
    "model.encoder.n_layers=4",
    "model.encoder.time_reduce_idx=1",
    "model.train_ds.batch_size=2",
    "model.train_ds.num_workers=0",
    "model.validation_ds.num_workers=0",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.enable_progress_bar=false",
    "exp_manager.create_tensorboard_logger=false",
]


def tokenized(folder: Path) -> list[str]:
    """Write four training and two validation utterances, and a tokenizer. Return the overrides that name them."""
    given = spoken(folder)
    train_tokenizer([str(folder / "train.json")], 16, str(folder / "tokenizer"))
    return [*given, f"model.tokenizer.dir={folder / 'tokenizer'}"]


def spoken(folder: Path) -> list[str]:
    """Write four training and two validation utterances. Return the overrides that name them."""
    train_set = write_manifest(folder, utterances=4)
    dev_set = write_manifest(folder, utterances=2, seconds=1.3, name="dev")
    return [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]


def signals(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the validation utterances: samples `(B, T)` and lengths `(B,)`."""
    read = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in sorted(folder.glob("dev_*.wav"))]
    return torch.stack(read), torch.tensor([len(samples) for samples in read])


def transcribed(model: Any, folder: Path) -> dict[str, Any]:
    """Return the encodings and the text of each decoder of the model."""
    samples, lengths = signals(folder)
    with torch.no_grad():
        encoded = model(input_signal=samples, input_signal_length=lengths)[:2]
    outputs = {"encoded": encoded[0], "lengths": encoded[1]}
    paths = [str(path) for path in sorted(folder.glob("dev_*.wav"))]
    for decoder in ("ctc", "rnnt") if hasattr(model, "cur_decoder") else (None,):
        if decoder:
            model.change_decoding_strategy(decoder_type=decoder, verbose=False)
        outputs[f"text {decoder or ''}"] = [best.text for best in model.transcribe(paths, verbose=False)]
    return outputs


@dataclass(frozen=True)
class ModelType:
    """A kind of model.

    Attributes:
        data: Writes the data of the recipe to an empty folder, and returns the overrides that name the data.
        output: Returns the outputs of a model in eval mode for this folder: tensors and plain values, by name. A call
            in another process must return equal outputs.
        small: Overrides that make the other parts of the model small. The encoder and the trainer are already small.
            These overrides and the overrides of ``data`` come last and have precedence.
        keys: The keys that users of NeMo's recipes override, and that tools for recipes expect.
        encoder: The path of the encoder in the recipe and in the model.
        train: Trains a composed recipe and returns the model.
        loss: The name under which the model logs its training loss.
    """

    data: Callable[[Path], list[str]]
    output: Callable[[Any, Path], dict[str, Any]] = transcribed
    small: tuple[str, ...] = ()
    keys: str = COMMON_KEYS + SPEECH_KEYS
    encoder: str = "model.encoder"
    train: Callable[[Any], Any] = train
    loss: str = "train_loss"

    def overrides(self, folder: Path) -> list[str]:
        """Return all overrides for a training of two steps in ``folder``."""
        small = [setting.replace("model.encoder.", f"{self.encoder}.") for setting in SMALL]
        run = ["trainer.max_epochs=1", "trainer.max_steps=2", f"exp_manager.exp_dir={folder / 'exp'}"]
        return [*small, *run, *self.small, *self.data(folder)]
