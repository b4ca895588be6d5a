"""Squeezeformer, Conformer and FastConformer with equal parameters, data and steps: word error rate, time and FLOPs.

    python benchmarks/side_by_side.py run digits --train train.jsonl --dev dev.jsonl --test test=test.jsonl
    python benchmarks/side_by_side.py time
    python benchmarks/side_by_side.py table benchmarks/results/side_by_side > benchmarks/results/side_by_side/README.md

`run` trains every architecture at every peak learning rate, then its best rate (on the dev set) with further seeds, all
as NeMo's CTC model, on one thread each. A run that has been claimed is not repeated, so that several processes may
share the work; delete the claims of a stopped one to go on. `time` measures training steps of all in turn, on a
machine without other work. `table` makes the committed page from what both have left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

SQUEEZEFORMER = {
    "_target_": "nemo_squeezeformer.SqueezeformerEncoder",
    "subsampling": "dw_striding",
    "time_recovery_idx": None,
    "adaptive_scale": True,
}
CONFORMER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "dropout_pre_encoder": 0.0,
}
# Widths are those that bring the encoders nearest to each other in parameters; all have six layers of two heads.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Squeezeformer": SQUEEZEFORMER
    | {"d_model": 64, "time_reduce_idx": 2, "subsampling_factor": 4, "conv_kernel_size": 31},
    "Conformer": CONFORMER
    | {"d_model": 66, "subsampling": "striding", "subsampling_factor": 4, "conv_kernel_size": 31},
    "Squeezeformer 8x": SQUEEZEFORMER
    | {"d_model": 66, "time_reduce_idx": 2, "subsampling_factor": 8, "conv_kernel_size": 9},
    "FastConformer": CONFORMER
    | {"d_model": 68, "subsampling": "dw_striding", "subsampling_factor": 8, "conv_kernel_size": 9},
}
RESULTS = Path("benchmarks/results/side_by_side")
SHARED = {
    "feat_in": 80,
    "n_layers": 6,
    "n_heads": 2,
    "subsampling_conv_channels": 32,
    "dropout": 0.0,  # a thousand steps do not overfit, and dropout takes a third of the time on a CPU
    "dropout_att": 0.0,
    "dropout_emb": 0.0,
}


def encoder_config(architecture: str) -> dict[str, Any]:
    return SHARED | ARCHITECTURES[architecture]


def model_config(encoder: dict[str, Any], args: argparse.Namespace, peak: float) -> Any:
    """Our CTC recipe with that encoder, and NeMo's cosine schedule with a tenth of warm-up."""
    from omegaconf import OmegaConf, open_dict

    from nemo_squeezeformer.training.recipes import compose

    data = f"[{','.join(map(str, args.train))}]"
    cfg = compose(
        "squeezeformer_ctc_bpe",
        [
            "size=tiny",
            f"model.tokenizer.dir={args.tokenizer}",
            f"model.train_ds.manifest_filepath={data}",
            f"model.validation_ds.manifest_filepath={args.dev}",
            f"model.train_ds.batch_size={args.batch}",
            "model.train_ds.num_workers=0",
            "model.validation_ds.num_workers=0",
            "+model.train_ds.use_semi_sorted_batching=true",
            "+model.train_ds.randomization_factor=0.2",
            "+model.train_ds.drop_last=false",
            f"schedule.steps_per_epoch={args.steps}",
            "model.log_prediction=false",
        ],
    )
    cfg = OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True))
    with open_dict(cfg):
        cfg.encoder = encoder
        cfg.optim.lr, cfg.optim.weight_decay = peak, 0.001
        cfg.optim.sched = {
            "name": "CosineAnnealing",
            "warmup_steps": args.steps // 10,
            "max_steps": args.steps,
            "min_lr": peak / 50,
        }
    return cfg


def word_error_rates(model: Any, manifests: dict[str, Path]) -> dict[str, float]:
    from nemo.collections.asr.metrics.wer import word_error_rate

    rates = {}
    model.eval()
    for name, manifest in manifests.items():
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        audio = [str(manifest.parent / row["audio_filepath"]) for row in rows]
        texts = [hypothesis.text for hypothesis in model.transcribe(audio, batch_size=16, verbose=False, num_workers=0)]
        rates[name] = 100 * word_error_rate(texts, [row["text"] for row in rows])
    return rates


def one_thread_trainer(steps: int, *callbacks: Any) -> Any:
    """Lightning's, for ``steps`` on the CPU and nothing beside: no logs, checkpoints or validation."""
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


def run_once(
    args: argparse.Namespace, architecture: str, peak: float, seed: int, encoder: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One training: losses by tenths of the run, word error rates, and processor seconds.

    ``encoder``: its settings, where it is none of ARCHITECTURES.
    """
    import lightning.pytorch as lightning
    import torch
    from nemo.collections.asr.models import EncDecCTCModelBPE

    class Losses(lightning.Callback):
        """The training loss of each step."""

        def __init__(self) -> None:
            self.each: list[float] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.each.append(float(outputs["loss"]))

    losses = Losses()
    lightning.seed_everything(seed)
    trainer = one_thread_trainer(args.steps, losses)
    settings = encoder or encoder_config(architecture)
    model = EncDecCTCModelBPE(cfg=model_config(settings, args, peak), trainer=trainer)
    began, wall = time.process_time(), time.time()
    trainer.fit(model)
    seconds, wall = time.process_time() - began, time.time() - wall
    tenth = max(1, len(losses.each) // 10)
    by_tenths = [mean(losses.each[i * tenth : (i + 1) * tenth]) for i in range(10)]
    finite = all(torch.isfinite(weight).all() for weight in model.parameters()) and math.isfinite(by_tenths[-1])
    wer = word_error_rates(model, {"dev": args.dev, **dict(args.test)}) if finite else {}
    return {
        "data": args.name,
        "architecture": architecture,
        "peak_lr": peak,
        "seed": seed,
        "steps": len(losses.each),
        "loss": [round(value, 4) for value in by_tenths],
        "wer": {name: round(rate, 2) for name, rate in wer.items()},
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(wall, 1),
        "finite": finite,
    }


def done(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def claim(results: Path, *key: object) -> bool:
    """Whether this process is the one to do the run of that key."""
    folder = results.with_suffix(".claims")
    folder.mkdir(exist_ok=True)
    try:
        (folder / "_".join(map(str, key)).replace(" ", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def best_peak(runs: list[dict[str, Any]], architecture: str, peaks: list[float]) -> float | None:
    """The peak with the least word error rate on the dev set, once all have been run; None before."""
    first = {
        r["peak_lr"]: r["wer"].get("dev", math.inf)
        for r in runs
        if r["architecture"] == architecture and r["seed"] == 0
    }
    return min(first, key=lambda peak: first[peak]) if set(peaks) <= set(first) else None


def run(args: argparse.Namespace) -> None:
    import torch
    from nemo.utils import logging

    from nemo_squeezeformer.commands.tokenizer import train_tokenizer

    torch.set_num_threads(1)
    logging.setLevel(logging.ERROR)
    args.output.mkdir(parents=True, exist_ok=True)
    results = args.output / f"{args.name}.jsonl"
    args.tokenizer = args.work / f"tokenizer-{args.name}-{args.vocabulary}"
    if not (args.tokenizer / "tokenizer.model").exists():
        train_tokenizer([str(path) for path in args.train], args.vocabulary, str(args.tokenizer))

    def do(architecture: str, peak: float, seed: int) -> None:
        if claim(results, architecture, peak, seed):
            row = run_once(args, architecture, peak, seed)
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

    for peak in args.peaks:
        for architecture in args.architectures:
            do(architecture, peak, 0)
    for architecture in args.architectures:
        while (peak := best_peak(done(results), architecture, args.peaks)) is None:
            time.sleep(5)  # another process is at it
        for seed in range(1, args.seeds):
            do(architecture, peak, seed)


def build_encoder(architecture: str) -> Any:
    from nemo.core.classes import Serialization
    from omegaconf import OmegaConf

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    return Serialization.from_config_dict(OmegaConf.create(encoder_config(architecture)))


def gflops(encoder: Any, seconds: int = 30) -> float:
    """Floating-point operations of one utterance, a multiplication and an addition counted as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    frames = 100 * seconds
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(audio_signal=torch.randn(1, 80, frames), length=torch.tensor([frames]))
    return counter.get_total_flops() / 1e9


def measure(args: argparse.Namespace) -> None:
    """Training steps of the encoders, interleaved: forward, backward, 16 utterances of 4 s, one thread."""
    import lightning
    import nemo
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoders = {name: build_encoder(name) for name in ARCHITECTURES}
    page = {
        name: {"parameters": sum(p.numel() for p in encoder.parameters()), "gflops_30_s": round(gflops(encoder), 2)}
        for name, encoder in encoders.items()
    }
    features, lengths = torch.randn(16, 80, 400), torch.randint(200, 401, (16,))
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    for repeat in range(args.repeats + 2):
        for name, encoder in encoders.items():
            encoder.train()
            began = time.perf_counter()
            encoder(audio_signal=features, length=lengths)[0].square().mean().backward()
            if repeat >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - began)
    for name, times in seconds.items():
        low, middle, high = quantiles(times, n=4)
        page[name] |= {"step_ms": round(1e3 * middle), "step_ms_quartiles": [round(1e3 * low), round(1e3 * high)]}
    versions = f"NeMo {nemo.__version__}, torch {torch.__version__}, lightning {lightning.__version__}"
    page["conditions"] = {"machine": f"{processor()}, one thread", "versions": versions}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "time.json").write_text(json.dumps(page, indent=2) + "\n")


def processor() -> str:
    """The name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def failed(run: dict[str, Any], best: float) -> bool:
    """Whether it did not converge: 90 % of errors or more, or a loss that ends thrice as high as ``best`` or higher."""
    return not run["finite"] or run["loss"][-1] >= 3 * best or run["wer"]["dev"] >= 90


def table(args: argparse.Namespace) -> None:
    timed = json.loads((args.results / "time.json").read_text())
    print("# Side by side\n")
    print("Made by `benchmarks/side_by_side.py`; every run is in the `.jsonl` files here.\n")
    print("| encoder | parameters | GFLOPs at 30 s | training step, ms (quartiles) |")
    print("|---|---|---|---|")
    for name in ARCHITECTURES:
        row = timed[name]
        low, high = row["step_ms_quartiles"]
        print(f"| {name} | {row['parameters']:,} | {row['gflops_30_s']:.2f} | {row['step_ms']} ({low}-{high}) |")
    print(f"\n16 utterances of 2 to 4 s, forward and backward, interleaved. {'. '.join(timed['conditions'].values())}.")
    for path in sorted(args.results.glob("*.jsonl")):
        runs = done(path)
        print(f"\n## {path.stem}\n")
        sets = list(max((r["wer"] for r in runs), key=len))
        peaks = sorted({r["peak_lr"] for r in runs})
        rates = " | ".join(f"dev at {peak:g}" for peak in peaks)
        print(
            f"{runs[0]['steps']} steps. Word error rates in percent; on the right at the best rate, one figure a seed."
        )
        print(
            "Processor seconds: of the training at that rate, beside other work on the machine; the steps above: alone."
        )
        print(
            "No convergence: 90 or more on dev, or a loss that ends three times as high as in the encoder's best run."
        )
        if all(failed(run, math.inf) for run in runs):
            print("So few steps taught none of them to transcribe: this table tells no encoder from another.")
        print()
        print(f"| encoder | {rates} | best | {' | '.join(sets)} | processor seconds | no convergence at |")
        print("|---|" + "---|" * (len(peaks) + len(sets) + 3))
        for name in ARCHITECTURES:
            mine = [r for r in runs if r["architecture"] == name]
            best = best_peak(runs, name, peaks)
            if best is None:
                continue
            by_peak = {r["peak_lr"]: r["wer"].get("dev") for r in mine if r["seed"] == 0}
            at_best = sorted((r for r in mine if r["peak_lr"] == best), key=lambda r: r["seed"])
            cells = [f"{by_peak[peak]:.1f}" if by_peak[peak] is not None else "-" for peak in peaks]
            cells.append(f"{best:g}")
            cells += [", ".join(f"{r['wer'][which]:.1f}" if r["wer"] else "-" for r in at_best) for which in sets]
            cells.append(", ".join(f"{r['cpu_seconds']:.0f}" for r in at_best))
            least = min(r["loss"][-1] for r in mine if r["finite"])
            cells.append(
                ", ".join(f"{peak:g}" for peak in sorted({r["peak_lr"] for r in mine if failed(r, least)})) or "none"
            )
            print(f"| {name} | {' | '.join(cells)} |")


def named(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="train and evaluate")
    runs.add_argument("name", help="of the data, in the table")
    runs.add_argument("--train", nargs="+", type=Path, required=True)
    runs.add_argument("--dev", type=Path, required=True)
    runs.add_argument("--test", nargs="*", type=named, default=[])
    runs.add_argument("--vocabulary", type=int, default=32)
    runs.add_argument("--steps", type=int, default=800)
    runs.add_argument("--batch", type=int, default=16)
    runs.add_argument("--peaks", nargs="+", type=float, default=[5e-4, 1.5e-3, 4.5e-3])
    runs.add_argument("--seeds", type=int, default=2)
    runs.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    runs.add_argument("--output", type=Path, default=RESULTS)
    runs.add_argument("--work", type=Path, default=Path("build/side_by_side"))
    runs.set_defaults(do=run)
    times = commands.add_parser("time", help="measure training steps")
    times.add_argument("--repeats", type=int, default=15)
    times.add_argument("--output", type=Path, default=RESULTS)
    times.set_defaults(do=measure)
    tables = commands.add_parser("table", help="print the page")
    tables.add_argument("results", type=Path)
    tables.set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
