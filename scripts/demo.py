"""The demo: create synthetic speech, train a small Squeezeformer with NeMo, and transcribe unseen speakers."""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from demo_plot import Alignment, Span, plot
from make_speech import make_speech

from nemo_squeezeformer.errors import UserError

# The possible names of the manifest of each part in the folder of --data. The demo uses the first existing file.
MANIFESTS = {
    "train": ("train*.json", "train*.jsonl"),
    "dev": ("dev*.json", "dev*.jsonl", "val*.json", "val*.jsonl"),
    "test": ("test*.json", "test*.jsonl"),
}
# A smaller network and a higher peak learning rate than in the recipe, for a training of minutes on two cores.
RECIPE = [
    "size=tiny",
    "model.encoder.n_layers=5",
    "model.encoder.time_reduce_idx=2",
    "model.encoder.subsampling_conv_channels=32",
    "model.encoder.dropout=0",
    "model.encoder.dropout_att=0",
    "model.spec_augment.freq_masks=1",
    "model.optim.lr=0.002",
    "model.train_ds.num_workers=0",
    "model.validation_ds.num_workers=0",
    "model.validation_ds.batch_size=32",
    "model.log_prediction=false",
    "trainer.devices=1",
    "trainer.max_epochs=-1",
    "trainer.check_val_every_n_epoch=null",
    "trainer.enable_progress_bar=false",
]


def main() -> int:
    args = arguments()
    log = args.output / "demo.log"
    start = time.perf_counter()
    try:
        prepare(args)
        manifests = find_manifests(args.data) if args.data else speak(args)
        print("starting NeMo ...", flush=True)
        with quiet(log) as screen:
            run(args, manifests, screen)
    except UserError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    except Exception:
        print(f"demo: failed with the error below; NeMo's messages before the error are in {log}", file=sys.stderr)
        raise
    print(f"log:     {log}\ntotal:   {(time.perf_counter() - start) / 60:.1f} minutes")
    return 0


def arguments() -> argparse.Namespace:
    looked_for = "; ".join(f"{part}: {', '.join(names)}" for part, names in MANIFESTS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/demo"), metavar="DIR", help="folder for all output")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="train on your own NeMo manifests in this folder instead of synthetic speech; for each part the first "
        f"existing file is used: {looked_for} (without a test manifest, dev is used)",
    )
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="optimizer steps")
    parser.add_argument("--minutes", type=float, default=7.5, metavar="N", help="stop training after at most N minutes")
    parser.add_argument("--train", type=int, default=3000, metavar="N", help="synthetic utterances to train on")
    parser.add_argument("--test", type=int, default=200, metavar="N", help="synthetic utterances to test on")
    parser.add_argument(
        "--voices", type=int, default=150, metavar="N", help="synthetic voices; one third is not used for training"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of speech and training")
    args = parser.parse_args()
    for name in ("steps", "minutes", "train", "test"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} {getattr(args, name)}: expected a number above 0")
    return args


def prepare(args: argparse.Namespace) -> None:
    """Check the packages and the output folder before the training, which takes minutes.

    Raises:
        UserError: a package is missing, or the output folder cannot be created.
    """
    packages = {"nemo": "nemo_toolkit[asr]", "matplotlib": "matplotlib"}
    packages |= {} if args.data else {"espeakng_loader": "espeakng-loader"}
    if missing := [package for module, package in packages.items() if importlib.util.find_spec(module) is None]:
        raise UserError(
            f"the demo needs more packages; run: pip install {' '.join(repr(package) for package in missing)}"
        )
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "demo.log").touch()
    except OSError as error:
        raise UserError(
            f"--output {args.output}: the folder is not writable ({error}); choose another folder"
        ) from None


def find_manifests(folder: Path) -> dict[str, Path]:
    """Return the paths of the manifests of train, dev and test in the folder of ``--data``.

    Raises:
        UserError: the folder does not exist, or the folder has no manifest for training or for validation.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder}: this folder does not exist")
    found: dict[str, Path] = {}
    for part, names in MANIFESTS.items():
        paths = sorted(path for name in names for path in folder.glob(name))
        if not paths and part != "test":
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
            raise UserError(f"--data {folder}: no {part} manifest; looked for {', '.join(names)}, found {there}")
        found[part] = paths[0] if paths else found["dev"]
        print(f"{part}: {found[part]}")
    return found


def speak(args: argparse.Namespace) -> dict[str, Path]:
    """Create synthetic speech in ``output/speech``. One third of the voices is not used for training."""
    print(
        f"creating {args.train} sentences for training and {args.test} for testing, in {args.voices} voices ...",
        flush=True,
    )
    sizes = {"train": args.train, "dev": max(1, args.test // 2), "test": args.test}
    return make_speech(args.output / "speech", sizes, args.voices, args.seed)


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Redirect stdout and stderr, also the output of C code, to the log. Yield a file that writes to the screen."""
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = os.dup(1), os.dup(2)
    with log.open("w") as file, os.fdopen(os.dup(stdout), "w", buffering=1) as screen:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield screen
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.close(stdout)
            os.close(stderr)


def run(args: argparse.Namespace, manifests: dict[str, Path], screen: TextIO) -> None:
    """Train and save the model, transcribe with the saved model, draw the figure, and print the names of the files."""
    from nemo_squeezeformer.files.outputs import written_whole

    model, losses, wers = train(args, manifests, screen)
    path, figure = args.output / "squeezeformer.nemo", args.output / "demo.png"
    with written_whole(path) as new:
        model.save_to(str(new))
    example = transcribe(path, manifests, screen)
    with written_whole(figure) as new:
        plot(new, losses, wers, example)
    command = "nemo-squeezeformer"
    if shutil.which(command) is None:
        command = os.path.relpath(Path(sys.executable).with_name(command))
    print(f"\nmodel:   {path}\nfigure:  {figure}", file=screen)
    print(f"transcribe with the model:  {command} transcribe {path} FILE", file=screen)


def train(
    args: argparse.Namespace, manifests: dict[str, Path], screen: TextIO
) -> tuple[Any, list[tuple[int, float]], list[tuple[int, float]]]:
    """Train a model from a recipe with NeMo and Lightning.

    Returns:
        The model, the (step, loss) pairs and the (step, validation WER) pairs.
    """
    import lightning.pytorch as lightning
    import torch
    from demo_progress import Progress
    from nemo.collections.asr.models import EncDecCTCModel

    from nemo_squeezeformer.training import recipes, schedule

    cfg = recipes.compose(
        "squeezeformer_ctc_char",
        [
            *RECIPE,
            *(["model.labels=null"] if args.data else []),  # null: the characters of the user's own transcripts
            f"trainer.max_steps={args.steps}",
            f"trainer.val_check_interval={max(1, min(args.steps // 8, 125))}",
            f"trainer.accelerator={'gpu' if torch.cuda.is_available() else 'cpu'}",
        ],
    )
    cfg.model.train_ds.manifest_filepath = str(manifests["train"])
    cfg.model.validation_ds.manifest_filepath = str(manifests["dev"])
    recipes.check_names(cfg)
    recipes.check(cfg)
    recipes.fill_labels(cfg)
    lightning.seed_everything(args.seed, workers=True)
    progress = Progress(args.steps, screen)
    trainer = lightning.Trainer(**cfg.trainer, max_time=timedelta(minutes=args.minutes), callbacks=[progress])
    model = EncDecCTCModel(cfg.model, trainer=trainer)
    schedule.keep_warm_up(model)
    trainer.fit(model)
    steps, parameters = trainer.global_step, sum(p.numel() for p in model.parameters())
    early = f" (stopped by --minutes {args.minutes:g} before --steps {args.steps})" if steps < args.steps else ""
    print(f"trained {parameters / 1e6:.1f} M parameters for {steps} steps{early}", file=screen)
    return model, progress.losses, progress.wers


def transcribe(path: Path, data: dict[str, Path], screen: TextIO) -> Alignment:
    """Restore the model from the file ``path``, transcribe the test manifest, and print a report.

    Returns:
        The alignment of one test utterance, for the figure.
    """
    import torch
    from nemo.collections.asr.metrics.wer import word_error_rate
    from tqdm import tqdm

    from nemo_squeezeformer.files import manifests
    from nemo_squeezeformer.transcription import hypotheses, models

    utterances = manifests.read_utterances(data["test"], required=("audio_filepath", "duration", "text"))
    model = models.load_model(str(path), torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = hypotheses.decoding_config(model, utterances, timestamps=True)
    models.enable_timestamps(model)
    batches = hypotheses.decode(model, config, utterances, batch_size=16, num_workers=0, channel="average")
    found: list[Any] = []
    start = time.perf_counter()
    with tqdm(total=len(utterances), desc="transcribing", unit="utterance", file=screen, dynamic_ncols=True) as bar:
        for batch in batches:
            for result in batch:
                if result.problem:
                    raise UserError(result.problem)
                found.append(result.best)
            bar.update(len(batch))
    seconds, audio = time.perf_counter() - start, sum(utterance.duration for utterance in utterances)

    references = [utterance.row["text"] for utterance in utterances]
    wer = word_error_rate([hypothesis.text for hypothesis in found], references)
    words = sum(len(reference.split()) for reference in references)
    print(f"\n{data['test']}: {len(utterances)} utterances, {words} words, {audio / 60:.1f} minutes", file=screen)
    speakers, trained_on = ({row.get("speaker") for row in rows(data[part])} - {None} for part in ("test", "train"))
    if speakers:
        print(f"voices:  {len(speakers)}, {len(speakers - trained_on)} of them not in the training data", file=screen)
    print(f"WER:     {wer:.2%}", file=screen)
    print(f"RTF:     {seconds / audio:.4f} (time / audio: {seconds:.1f} s)\n", file=screen)
    width = max(len(reference) for reference in references[:8])
    print(f"{'reference':<{width}} | hypothesis", file=screen)
    for reference, hypothesis in list(zip(references, found, strict=True))[:8]:
        print(f"{reference:<{width}} | {hypothesis.text}", file=screen)

    # The figure shows the first sentence whose length is readable in the figure.
    choice = next((i for i, reference in enumerate(references) if 5 <= len(reference.split()) <= 8), 0)
    return align(model, utterances[choice], found[choice])


def rows(manifest: Path) -> list[dict[str, Any]]:
    """Return the rows of a manifest."""
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]


def align(model: Any, utterance: Any, hypothesis: Any) -> Alignment:
    """Return the features and the token probabilities of the frames of an utterance, and the words of the utterance."""
    import torch
    from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

    segment = AudioSegment.from_file(
        utterance.audio,
        target_sr=model.cfg.preprocessor.sample_rate,
        offset=utterance.offset,
        duration=utterance.duration,
        channel_selector="average" if utterance.channels > 1 else None,
    )
    model.eval()  # NeMo's transcription leaves parts of the model in training mode
    samples = torch.as_tensor(segment.samples, device=model.device)
    length = torch.tensor([len(samples)], device=model.device)
    with torch.inference_mode():
        features, _ = model.preprocessor(input_signal=samples[None], length=length)
        log_probabilities, frames, _ = model(input_signal=samples[None], input_signal_length=length)
    window_stride = model.cfg.preprocessor.window_stride
    return Alignment(
        features=features[0].cpu().numpy(),
        feature_seconds=window_stride,
        probabilities=log_probabilities[0, : frames[0]].exp().cpu().numpy(),
        output_seconds=window_stride * model.encoder.subsampling_factor,
        tokens=list(model.decoder.vocabulary),
        reference=utterance.row["text"],
        hypothesis=hypothesis.text,
        emitted=[Span(word["word"], word["start"], word["end"]) for word in hypothesis.timestamp["word"]],
        spoken=[Span(word["word"], word["start"], word["end"]) for word in utterance.row.get("words", [])],
    )


if __name__ == "__main__":
    raise SystemExit(main())
