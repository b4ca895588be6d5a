"""`nemo-squeezeformer export`: ONNX files of a .nemo model, with caches or without, that say what they need."""

import argparse
from pathlib import Path

from nemo_squeezeformer.commands.inputs import check_model, quiet
from nemo_squeezeformer.errors import UserError

HELP = "write a .nemo model as ONNX, with caches if it streams"
DESCRIPTION = """\
By NeMo's own export, of the encoder after optimize_for_inference(): with CTC one graph, of a transducer
encoder-OUT.onnx and decoder_joint-OUT.onnx.
What a runtime must know beside the graph is in its metadata: features, chunks, caches, tokens. Without torch and NeMo:
  python -m nemo_squeezeformer.onnx_stream OUT.onnx AUDIO.wav
A graph has one latency; of a model that was trained for several, --att-context-size chooses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .nemo file, or the name of a pretrained model to be fetched")
    add("--output", "-o", metavar="OUT.onnx", type=Path, required=True)
    add("--force", action="store_true", help="overwrite files that exist")
    add("--decoder", choices=("ctc", "rnnt"), help="which decoder of a hybrid model (default: its own choice)")
    add(
        "--att-context-size",
        type=_size,
        metavar="LEFT,RIGHT",
        help="frames that attention sees, as 156,11 or [156, 11] (default: the model's)",
    )
    add("--offline", action="store_true", help="for whole utterances, without caches (default: for streams)")
    add(
        "--int8",
        action="store_true",
        help="quantise the encoder's linear layers: a file of a third the size, faster, a little less exact",
    )
    add("--opset", type=int, metavar="N", help="of ONNX (default: NeMo's choice)")
    add("--verbose", action="store_true", help="show NeMo's log and all warnings")


def main(args: argparse.Namespace) -> int:
    """0 when all files are written; their names are printed.

    Raises:
        UserError: for an OUT that is no .onnx file or exists, a model that there is none of, an att_context_size that
            it cannot have, and as ``onnx_export.export`` does.
    """
    output: Path = args.output
    if output.suffix != ".onnx":
        raise UserError(f"--output {output}: give a name that ends in .onnx")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}; make it first")
    for path in (output, *(output.with_name(f"{part}-{output.name}") for part in ("encoder", "decoder_joint"))):
        if path.exists() and not args.force:
            raise UserError(f"{path} exists; choose another --output, or pass --force to overwrite it")
    check_model(args.model)
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer import onnx_export, transcription

        model = transcription.load_model(args.model, torch.device("cpu"), args.verbose)
        transcription.choose_decoder(model, args.decoder)
        if args.att_context_size is not None:
            try:
                model.encoder.set_default_att_context_size(args.att_context_size)
            except ValueError as error:
                raise UserError(f"--att-context-size: {error}") from error
        try:
            paths = onnx_export.export(model, output, not args.offline, args.opset, args.int8)
        except UserError as error:
            raise UserError(f"{args.model}: {error}") from error
    for path in paths:
        print(path)
    return 0


def _size(text: str) -> list[int]:
    try:
        return [int(frames) for frames in text.strip("[] ").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of frames such as 156,11") from None
