"""What it takes to try each kind of NeMo model: its data, its size, and what it gives out.

``test_every_recipe.py`` takes every recipe in conf/ through this table: composed in every size, trained for two steps,
saved, restored in another process. A recipe that is not here is tried as plain speech recognition. For other kinds:

- write a ``ModelType`` and enter it in ``MODEL_TYPES`` under its class, the last word of ``model_target``;
- a recipe that differs from others of its class goes in under its own name, which wins.

Kinds with much to say may have a module of their own: ``MODEL_TYPES |= other.MODEL_TYPES`` at the end of this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
from hydra.utils import get_class

from nemo_squeezeformer.commands.tokenizer import train_tokenizer
from nemo_squeezeformer.commands.train import train
from tests.speech import write_manifest

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
PLAIN_KEYS = """
    model.skip_nan_grad model.train_ds.is_tarred model.train_ds.tarred_audio_filepaths
    model.train_ds.bucketing_batch_size
"""
CTC_KEYS = "model.log_prediction model.interctc.loss_weights model.interctc.apply_at_layers"
TRANSDUCER_KEYS = """
    model.log_prediction model.compute_eval_loss model.rnnt_reduction model.model_defaults.pred_hidden
    model.model_defaults.joint_hidden model.decoder.prednet.pred_rnn_layers model.joint.fuse_loss_wer
    model.joint.fused_batch_size model.decoding.strategy model.decoding.greedy.max_symbols
    model.decoding.beam.beam_size model.loss.loss_name model.loss.warprnnt_numba_kwargs.fastemit_lambda
    model.variational_noise.std
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
    """Four utterances to train on, two to validate with, and a tokenizer; the overrides that name them."""
    given = spoken(folder)
    train_tokenizer([str(folder / "train.json")], 16, str(folder / "tokenizer"))
    return [*given, f"model.tokenizer.dir={folder / 'tokenizer'}"]


def spoken(folder: Path) -> list[str]:
    """The same without a tokenizer."""
    train_set = write_manifest(folder, utterances=4)
    dev_set = write_manifest(folder, utterances=2, seconds=1.3, name="dev")
    return [f"model.train_ds.manifest_filepath={train_set}", f"model.validation_ds.manifest_filepath={dev_set}"]


def signals(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The development utterances: samples (B, T), their lengths (B)."""
    read = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in sorted(folder.glob("dev_*.wav"))]
    return torch.stack(read), torch.tensor([len(samples) for samples in read])


def transcribed(model: Any, folder: Path) -> dict[str, Any]:
    """What the encoder gives, and what each of the model's decoders makes of it."""
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
    """One kind of model.

    ``data`` writes what the recipe reads into an empty folder, and returns the overrides that name it.
    ``output`` is what a model (in eval mode) makes of that folder: tensors and plain values, by name; it is called in
        another process too, and must give the same there.
    ``small`` are overrides that make the model's own parts cheap; the encoder and the trainer are small already. Both
        these and ``data``'s come last, and win.
    ``keys`` are what users of NeMo's recipes of this kind override, and what tools that edit recipes look for.
    ``encoder`` is where the recipe and the model keep the encoder.
    ``train`` trains a composed recipe, and returns the model.
    ``loss`` is the name that the model logs its training loss by.
    ``gpu_only`` says why it cannot train on a CPU; it is built there all the same.
    """

    data: Callable[[Path], list[str]]
    output: Callable[[Any, Path], dict[str, Any]] = transcribed
    small: tuple[str, ...] = ()
    keys: str = COMMON_KEYS + SPEECH_KEYS
    encoder: str = "model.encoder"
    train: Callable[[Any], Any] = train
    loss: str = "train_loss"
    gpu_only: str = ""

    def overrides(self, folder: Path) -> list[str]:
        """All that a recipe needs to be trained for two steps within ``folder``."""
        small = [setting.replace("model.encoder.", f"{self.encoder}.") for setting in SMALL]
        run = ["trainer.max_epochs=1", "trainer.max_steps=2", f"exp_manager.exp_dir={folder / 'exp'}"]
        return [*small, *run, *self.small, *self.data(folder)]


NARROW = ("transducer.hidden=16", "model.decoding.greedy.max_symbols=2")
TDT = "NeMo has the TDT loss for CUDA only"
CTC = COMMON_KEYS + SPEECH_KEYS + CTC_KEYS + " model.ctc_reduction model.decoder.vocabulary"
TRANSDUCER = COMMON_KEYS + SPEECH_KEYS + TRANSDUCER_KEYS
HYBRID = TRANSDUCER + CTC_KEYS + " model.aux_ctc.ctc_loss_weight model.aux_ctc.decoder.vocabulary"
TDT_KEYS = " model.model_defaults.tdt_durations model.loss.tdt_kwargs.omega model.loss.tdt_kwargs.sigma"
MODEL_TYPES: dict[str, ModelType] = {
    "EncDecCTCModel": ModelType(spoken, keys=CTC + PLAIN_KEYS + " model.labels"),
    "EncDecCTCModelBPE": ModelType(tokenized, keys=CTC + PLAIN_KEYS + " model.tokenizer.dir"),
    "EncDecRNNTModel": ModelType(spoken, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + " model.labels"),
    "EncDecRNNTBPEModel": ModelType(tokenized, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + " model.tokenizer.dir"),
    "EncDecHybridRNNTCTCModel": ModelType(spoken, small=NARROW, keys=HYBRID + PLAIN_KEYS + " model.labels"),
    "EncDecHybridRNNTCTCBPEModel": ModelType(
        tokenized, small=NARROW, keys=HYBRID + PLAIN_KEYS + " model.tokenizer.dir"
    ),
    "squeezeformer_tdt_bpe": ModelType(tokenized, small=NARROW, keys=TRANSDUCER + PLAIN_KEYS + TDT_KEYS, gpu_only=TDT),
    "squeezeformer_hybrid_tdt_ctc_bpe": ModelType(
        tokenized, small=NARROW, keys=HYBRID + PLAIN_KEYS + TDT_KEYS, gpu_only=TDT
    ),
}


def model_type(recipe: str, target: str) -> ModelType:
    """How to try ``recipe``, whose ``model_target`` is ``target``."""
    name = recipe if recipe in MODEL_TYPES else target.rpartition(".")[2]
    return MODEL_TYPES.get(name) or ModelType(tokenized)


def model_class(target: str) -> Any:
    """NeMo's class of that name, or None where this NeMo has none."""
    try:
        return get_class(target)
    except Exception:  # Hydra's own kinds, or whatever importing the module raises
        return None


from tests import model_types_other  # noqa: E402  it builds on this module

MODEL_TYPES |= model_types_other.MODEL_TYPES
