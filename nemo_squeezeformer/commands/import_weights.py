"""`nemo-squeezeformer import`: convert the authors' TensorFlow weights and tokenizer to a .nemo file of a CTC model."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_squeezeformer.commands.inputs import quiet
from nemo_squeezeformer.commands.options import add_verbose, describe
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import require_folder, size_of
from nemo_squeezeformer.files.sentencepiece_model import read_model

if TYPE_CHECKING:
    from nemo_squeezeformer.checkpoints.tensorflow import Original

HELP = "convert the authors' TensorFlow weights to a .nemo file"
DESCRIPTION = """\
Read weights of the authors' release (github.com/kssteven418/Squeezeformer), or weights that the authors' code has
saved, and write a .nemo file. NeMo can load, run, export and train this model. The features and the outputs of the
model equal the features and the outputs of the authors' model. The command does not need TensorFlow.

The dimensions of the network come from the weight file. All other settings come from the recipe
squeezeformer_ctc_bpe_original.

The command needs h5py: pip install 'nemo-squeezeformer[tensorflow]'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add = parser.add_argument
    add("weights", metavar="WEIGHTS.h5", type=Path, help="file of Keras' save_weights, for example squeezeformer-S.h5")
    add(
        "--tokenizer",
        metavar="TOKENIZER.model",
        type=Path,
        required=True,
        help="SentencePiece model that the weights were trained with; for the authors' release: sp.model in the "
        "authors' repository",
    )
    add("--output", "-o", metavar="OUT.nemo", type=Path, required=True, help="file to write; the name ends in .nemo")
    add("--force", action="store_true", help="overwrite an existing file")
    add(
        "--time-reduce-idx",
        type=int,
        metavar="LAYER",
        help="first layer at half the frame rate; the weight file does not contain this number "
        "(default: (layers - 1) // 2, as in the published sizes)",
    )
    add(
        "--time-recovery-idx",
        type=int,
        metavar="LAYER",
        help="first layer at the full frame rate after the temporal U-Net; the weight file does not contain this "
        "number (default: the last layer, as in the published sizes)",
    )
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    """Write the .nemo file, print a description of the model, and return 0.

    Raises:
        UserError: OUT exists or is a folder, or the name does not end in ``.nemo``. The tokenizer is invalid, or the
            tokenizer belongs to other weights. ``tensorflow.read`` refuses the weight file. No file is written in these
            cases.
    """
    output: Path = args.output
    _check_output(output, args.force, size_of(args.weights))
    tokenizer, pieces = _read_tokenizer(args.tokenizer)
    with quiet(args.verbose):
        from nemo_squeezeformer.checkpoints.nemo_model import write_model
        from nemo_squeezeformer.checkpoints.tensorflow import read

        original = read(args.weights, args.time_reduce_idx, args.time_recovery_idx)
        if pieces != original.vocabulary_size:
            raise UserError(
                f"--tokenizer {args.tokenizer} has {pieces} pieces, but {args.weights} has {original.vocabulary_size} "
                "outputs; give the tokenizer that the weights were trained with"
            )
        write_model(original, tokenizer, output)
    print(description(original, output))
    return 0


def description(original: Original, output: Path) -> str:
    """Return a description of the imported model and the commands to use next."""
    from nemo_squeezeformer.checkpoints.nemo_model import published_size

    size, path = published_size(original), shlex.quote(str(output))
    return "\n".join(
        [
            f"{output}: Squeezeformer{f'-{size.upper()}' if size else ', not one of the published sizes'}",
            *_network(original),
            "next:",
            f"  nemo-squeezeformer transcribe {path} AUDIO",
            f"  nemo-squeezeformer train --from {path} \\",
            "      model.train_ds.manifest_filepath=TRAIN.json model.validation_ds.manifest_filepath=DEV.json",
        ]
    )


def _network(original: Original) -> list[str]:
    """Return a description of the network, with one line for each part of the network."""
    settings, statistics = original.settings, ("running_mean", "running_var", "num_batches_tracked")
    encoder = sum(weight.numel() for name, weight in original.encoder.items() if not name.endswith(statistics))
    logits = original.logits_weight.numel() + original.logits_bias.numel()
    reduce, recover = settings["time_reduce_idx"], settings["time_recovery_idx"]
    inside = list(range(reduce, recover)) if reduce is not None else []
    unet = f"layers {inside[0]} to {inside[-1]} at half the frame rate" if inside else "all layers at one frame rate"
    return [
        f"  encoder      {encoder:,} parameters: {settings['n_layers']} layers of width {settings['d_model']}, "
        f"{settings['n_heads']} heads, kernel {settings['conv_kernel_size']}, "
        f"feed-forward x {settings['ff_expansion_factor']}; {unet}",
        f"  subsampling  {settings['subsampling']}, {settings['subsampling_conv_channels']} channels, "
        f"{settings['feat_in']} mel bands",
        f"  CTC          {logits:,} parameters: {original.vocabulary_size} outputs, output 0 is the blank",
    ]


def _check_output(output: Path, force: bool, needed: int) -> None:
    if output.suffix != ".nemo":
        raise UserError(f"--output {output}: give a name that ends in .nemo")
    require_folder(output, f"--output {output}", needed)
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; choose another name for the file")
    if output.exists() and not force:
        raise UserError(f"--output {output} exists; choose another name, or pass --force to overwrite a file")


def _read_tokenizer(path: Path) -> tuple[bytes, int]:
    """Return the bytes of a SentencePiece model, and the number of pieces of the model."""
    model, pieces = read_model(path)
    if not (pieces.is_unknown(0) or pieces.is_control(0) or pieces.is_unused(0)):
        raise UserError(
            f"--tokenizer {path}: piece 0 is {pieces.id_to_piece(0)!r}, a piece of text, but number 0 is the CTC blank "
            "in the authors' models; give a tokenizer whose piece 0 is <unk>"
        )
    return model, len(pieces)
