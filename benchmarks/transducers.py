"""A transducer and hybrids, ours and NeMo's Conformer, trained alike on connected digits on one thread of a CPU.

    python benchmarks/transducers.py hybrid DIGITS --output build/transducers
    python benchmarks/timestamps.py DIGITS/connected_test_seen.jsonl build/transducers/*.nemo

Trains our recipes with characters, by NeMo's models and trainer. NeMo's transducer loss for CPUs is loops in Python, of
seconds a step; here the same loss goes by anti-diagonals (tests/benchmarks/test_transducers_and_pages.py shows that they agree).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from side_by_side import one_thread_trainer
from torch import Tensor, nn

RECIPES = {
    "hybrid": "squeezeformer_hybrid_transducer_ctc_char",
    "transducer": "squeezeformer_transducer_char",
    "conformer": "squeezeformer_hybrid_transducer_ctc_char",
    "streaming": "squeezeformer_hybrid_transducer_ctc_char_streaming",
}
WIDTHS = {
    "hybrid": 64,
    "transducer": 64,
    "conformer": 66,
    "streaming": 64,
}  # 66: as many parameters in the encoder as the others
IMPOSSIBLE = -1e30  # finite, so that the gradient of what is impossible is zero and not NaN


class AntiDiagonalTransducerLoss(nn.Module):
    """The transducer loss (Graves 2012, arXiv 1211.3711), all nodes of an anti-diagonal of the lattice at once."""

    reduction = None  # NeMo reduces

    def __init__(self, blank: int):
        super().__init__()
        self.blank = blank

    def forward(self, acts: Tensor, labels: Tensor, act_lens: Tensor, label_lens: Tensor) -> Tensor:
        """acts: (B, T, U + 1, V), labels: (B, U) -> the loss of each utterance (B,)"""
        t, u = acts.size(1), acts.size(2)
        log_probs = acts.log_softmax(dim=-1)
        blank = skewed(log_probs[..., self.blank])  # (T + U, B, U + 1)
        emit = skewed(log_probs[:, :, :-1].gather(-1, labels[:, None, :, None].expand(-1, t, -1, 1))[..., 0])

        start = torch.full_like(blank[0], IMPOSSIBLE)
        start[:, 0] = 0.0
        alphas = [start]
        for d in range(1, t + u - 1):
            stay = alphas[-1] + blank[d - 1]
            step = nn.functional.pad(alphas[-1][:, :-1] + emit[d - 1], (1, 0), value=IMPOSSIBLE)
            alphas.append(torch.logaddexp(stay, step))
        batch = torch.arange(acts.size(0))
        last = act_lens - 1 + label_lens
        return -(torch.stack(alphas)[last, batch, label_lens] + blank[last, batch, label_lens])


def skewed(x: Tensor) -> Tensor:
    """(B, T, U) -> (T + U - 1, B, U): row d holds the nodes with t + u = d."""
    b, t, u = x.shape
    x = nn.functional.pad(x.transpose(1, 2), (0, u), value=IMPOSSIBLE)  # (B, U, T + U)
    x = x.flatten(1)[:, : u * (t + u - 1)].view(b, u, t + u - 1)  # each row one step further right than the last
    return x.permute(2, 0, 1)


def config(name: str, args: argparse.Namespace) -> Any:
    from omegaconf import OmegaConf

    from nemo_squeezeformer.training.recipes import compose

    train = f"[{args.digits / 'connected_train.jsonl'},{args.digits / 'single_train.jsonl'}]"
    cfg = compose(
        RECIPES[name],
        [
            "size=tiny",
            f"model.train_ds.manifest_filepath={train}",
            f"model.validation_ds.manifest_filepath={args.digits / 'connected_dev.jsonl'}",
            "model.train_ds.batch_size=16",
            "model.train_ds.num_workers=0",
            "model.validation_ds.num_workers=0",
            "+model.train_ds.use_semi_sorted_batching=true",
            "+model.train_ds.randomization_factor=0.2",
            "+model.train_ds.drop_last=false",
            "model.labels=null",
            "model.log_prediction=false",
            "model.preprocessor.features=40",
            "+model.preprocessor.highfreq=4000",
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
    from nemo_squeezeformer.training.recipes import check

    check(cfg)
    model = OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True))
    model.optim.lr = args.peak
    model.optim.sched = {"name": "CosineAnnealing", "warmup_steps": args.steps // 10, "min_lr": args.peak / 50}
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

    logging.setLevel(logging.ERROR)
    lightning.seed_everything(args.seed)
    target, cfg = config(name, args)
    trainer = one_thread_trainer(args.steps)
    model = get_class(target)(cfg=cfg, trainer=trainer)
    model.loss._loss = AntiDiagonalTransducerLoss(model.joint.num_classes_with_blank - 1)
    began = time.process_time()
    trainer.fit(model)
    print(f"{name}: {args.steps} steps in {time.process_time() - began:.0f} processor seconds")
    args.output.mkdir(parents=True, exist_ok=True)
    model.save_to(args.output / f"{name}.nemo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument(
        "digits", type=Path, help="folder with connected_train.jsonl, single_train.jsonl and the others"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--peak", type=float, default=2.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/transducers"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args.name, args)


if __name__ == "__main__":
    main()
