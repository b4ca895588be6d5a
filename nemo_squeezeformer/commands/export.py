"""`nemo-squeezeformer export`: a .nemo model as ONNX that says what it needs, or as safetensors for plain torch."""

import argparse
from pathlib import Path
from typing import Any

from nemo_squeezeformer.commands.inputs import check_model, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_verbose, context_size, describe
from nemo_squeezeformer.deployment.onnx_stream.metadata import transducer_files
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import refuse_existing, require_folder

HELP = "write a .nemo model as ONNX, with caches if it streams, or as safetensors"
DESCRIPTION = """\
By NeMo's own export, of the encoder after optimize_for_inference(): with CTC one graph, of a transducer
encoder-OUT.onnx and decoder_joint-OUT.onnx.
What a runtime must know beside the graph is in its metadata: features, chunks, caches, tokens. Without torch and NeMo:
  python -m nemo_squeezeformer.onnx_stream OUT.onnx AUDIO.wav
A graph has one latency; of a model that was trained for several, --att-context-size chooses.
With --format safetensors OUT is a folder: weights and a plain config of the encoder and of a CTC decoder, if there is
one. In Python, without NeMo:
  nemo_squeezeformer.plain.load("OUT")"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add("--output", "-o", metavar="OUT", type=Path, required=True, help="OUT.onnx, or a folder for safetensors")
    add("--format", choices=("onnx", "safetensors"), default="onnx", help="default: onnx")
    add("--force", action="store_true", help="overwrite files that exist")
    add(
        "--att-context-size",
        type=context_size,
        metavar="LEFT,RIGHT",
        help="frames that attention sees, as 156,11 or [156, 11] (default: the model's)",
    )
    add_verbose(parser)
    onnx = parser.add_argument_group("ONNX alone").add_argument
    onnx("--decoder", choices=("ctc", "rnnt"), help="which decoder of a hybrid model (default: its own choice)")
    onnx("--offline", action="store_true", help="for whole utterances, without caches (default: for streams)")
    onnx(
        "--int8",
        action="store_true",
        help="quantise the encoder's linear layers: a file of a third the size, faster, a little less exact",
    )
    onnx("--opset", type=int, metavar="N", help="of ONNX (default: NeMo's choice)")


def main(args: argparse.Namespace) -> int:
    """0 when all files are written; their names are printed.

    Raises:
        UserError: for an OUT that is no .onnx file or exists, a model that does not exist, an att_context_size that
            it cannot have, and as ``model_files.export`` and ``weights.save`` do.
    """
    plain = args.format == "safetensors"
    _check_plain(args) if plain else _check_onnx(args)
    check_model(args.model)
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer.transcription import models

        model = models.load_model(args.model, torch.device("cpu"), args.verbose)
        models.choose_decoder(model, args.decoder)
        if args.att_context_size is not None:
            try:
                model.encoder.set_default_att_context_size(args.att_context_size)
            except ValueError as error:
                raise UserError(f"--att-context-size: {error}") from error
        try:
            paths = _write_plain(args, model) if plain else _write_onnx(args, model)
        except UserError as error:
            raise UserError(f"{args.model}: {error}") from error
    for path in paths:
        print(path)
    return 0


def _check_onnx(args: argparse.Namespace) -> None:
    output: Path = args.output
    if output.suffix != ".onnx":
        raise UserError(f"--output {output}: give a name that ends in .onnx, or --format safetensors")
    require_folder(output, f"--output {output}")
    refuse_existing((output, *transducer_files(output)), args.force)


def _write_onnx(args: argparse.Namespace, model: Any) -> list[Path]:
    from nemo_squeezeformer.deployment.onnx.model_files import export

    return export(model, args.output, not args.offline, args.opset, args.int8)


def _check_plain(args: argparse.Namespace) -> None:
    for option in ("decoder", "offline", "int8", "opset"):
        if getattr(args, option):
            raise UserError(f"--{option} is for ONNX; leave it out, or leave out --format safetensors")
    try:
        from nemo_squeezeformer.deployment.weights.saving import refuse_folder
    except ImportError as error:
        raise UserError(f"--format safetensors needs it ({error}); run `pip install safetensors`") from error
    refuse_folder(args.output, args.force)


def _write_plain(args: argparse.Namespace, model: Any) -> list[Path]:
    from nemo_squeezeformer.deployment import weights
    from nemo_squeezeformer.deployment.weights.config import ctc_head

    paths = weights.save(model, args.output, force=args.force)
    if ctc_head(model) is None:
        say(f"the encoder alone: the decoder of a {type(model).__name__} needs NeMo")
    elif hasattr(model, "joint"):
        say("the encoder and the CTC decoder: the transducer needs NeMo")
    return paths
