"""The training of transducers and of hybrid models on connected digits, on one CPU thread.

    python -m benchmarks.transducers hybrid DIGITS --output build/transducers
    python -m benchmarks.transducers.timestamps DIGITS/connected_test_seen.jsonl build/transducers/*.nemo

The program trains recipes of this project with characters. `conformer` is the hybrid recipe with NeMo's Conformer.
`tdt` is a transducer with durations (TDT) and sub-word units, because NeMo's decoding of TDT loses characters. All
trainings use NeMo's models and trainer, and equal data and schedules.

The digits have no frequencies above 4 kHz. Therefore, the models have 40 mel features up to 4 kHz. With `--full-band`,
the models have 80 mel features up to 8 kHz, which sherpa-onnx and onnx-asr need.

The losses are the losses that `nemo-squeezeformer train` uses on a CPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.recordings import digits
from benchmarks.measuring.training import Task, data_settings, make_tokenizer, one_thread_trainer, schedule

RECIPES = {
    "hybrid": "squeezeformer_hybrid_transducer_ctc_char",
    "transducer": "squeezeformer_transducer_char",
    "conformer": "squeezeformer_hybrid_transducer_ctc_char",
    "streaming": "squeezeformer_hybrid_transducer_ctc_char_streaming",
    "tdt": "squeezeformer_tdt_bpe",
}
# With a width of 66, Conformer has nearly the same number of parameters as the other encoders.
WIDTHS = {
    "hybrid": 64,
    "transducer": 64,
    "conformer": 66,
    "streaming": 64,
    "tdt": 64,
}
BATCH = 16
PIECES = 27  # sub-word units of the model with durations
TDT_LOSS = ["model.loss.tdt_kwargs.omega=0"]  # every step trains the durations


def tokenizer(args: argparse.Namespace) -> Path:
    """Return the folder of the tokenizer. If the tokenizer does not exist yet, it is trained."""
    task = Task(digits(args.digits), args.output / "tokenizer", args.steps, BATCH)
    make_tokenizer(task, PIECES)
    return task.tokenizer


def config(name: str, args: argparse.Namespace) -> Any:
    from omegaconf import OmegaConf

    from nemo_squeezeformer.training.recipes import check, compose, fill_labels

    cfg = compose(
        RECIPES[name],
        [
            "size=tiny",
            *data_settings(digits(args.digits), batch=BATCH),
            *([f"model.tokenizer.dir={tokenizer(args)}", *TDT_LOSS] if name == "tdt" else ["model.labels=null"]),
            *([] if args.full_band else ["model.preprocessor.features=40", "+model.preprocessor.highfreq=4000"]),
            "spec_augment.time_masks=2",
            "model.spec_augment.freq_width=8",
            f"model.encoder.d_model={WIDTHS[name]}",
            "model.encoder.n_layers=6",
            "model.encoder.n_heads=2",
            "model.encoder.time_reduce_idx=2",
            "model.encoder.subsampling_conv_channels=32",
            "model.encoder.conv_kernel_size=15",
            "model.encoder.dropout=0",
            "model.encoder.dropout_att=0",
            "model.joint.jointnet.dropout=0",
            "model.joint.fused_batch_size=16",
            "model.decoder.prednet.dropout=0",
            f"trainer.max_steps={args.steps}",
        ],
    )
    check(cfg)
    fill_labels(cfg)
    model = OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True))
    model.optim.lr = args.peak
    model.optim.sched = schedule(args.steps, args.peak)
    if name == "conformer":
        shared = {key: model.encoder[key] for key in ("feat_in", "n_layers", "d_model", "n_heads", "conv_kernel_size")}
        model.encoder = shared | {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "subsampling": "striding",
            "subsampling_factor": 4,
            "subsampling_conv_channels": 32,
            "dropout": 0.0,
            "dropout_pre_encoder": 0.0,
            "dropout_emb": 0.0,
            "dropout_att": 0.0,
        }
    return cfg.model_target, model


def train(name: str, args: argparse.Namespace) -> None:
    import lightning.pytorch as lightning
    from hydra.utils import get_class
    from nemo.utils import logging

    from nemo_squeezeformer.integration.callbacks import transducer_loss

    logging.setLevel(logging.ERROR)
    lightning.seed_everything(args.seed)
    target, cfg = config(name, args)
    trainer = one_thread_trainer(args.steps)
    model = get_class(target)(cfg=cfg, trainer=trainer)
    transducer_loss.add_callback(trainer)
    began = time.process_time()
    trainer.fit(model)
    print(f"{name}: {args.steps} steps in {time.process_time() - began:.0f} processor seconds")
    args.output.mkdir(parents=True, exist_ok=True)
    model.save_to(args.output / f"{name}.nemo")


def main() -> None:
    parser = command_line("benchmarks.transducers", __doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument(
        "digits", type=Path, help="folder with connected_train.jsonl, single_train.jsonl and the other manifests"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--peak", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full-band", action="store_true", help="80 mel features up to 8 kHz")
    parser.add_argument("--output", type=Path, default=Path("build/transducers"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args.name, args)


if __name__ == "__main__":
    main()
