"""`nemo-squeezeformer export`: write a model as ONNX with a description of the inputs, or as safetensors for torch."""

import argparse
from pathlib import Path
from typing import Any

from nemo_squeezeformer.commands.inputs import check_model, quiet, say
from nemo_squeezeformer.commands.options import add_model, add_verbose, context_size, describe
from nemo_squeezeformer.deployment.onnx.opsets import check_opset
from nemo_squeezeformer.deployment.onnx_stream.metadata import transducer_files
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import refuse_existing, refuse_folder, require_folder, size_of

RUNTIMES = ("sherpa-onnx", "onnx-asr")
HELP = "write a .nemo model as ONNX, for streams or for whole utterances, or as safetensors"
DESCRIPTION = """\
Write a .nemo model as ONNX by NeMo's own export, with the encoder after optimize_for_inference(). A CTC model gives
one graph. A transducer gives two graphs, encoder-OUT.onnx and decoder_joint-OUT.onnx.

The metadata of the graph contains all other data that a runtime needs: features, chunks, caches and tokens.
This command transcribes without torch and NeMo:
  python -m nemo_squeezeformer.onnx_stream OUT.onnx AUDIO.wav

A graph has one latency. If the model was trained for several latencies, choose one with --att-context-size.

With --for sherpa-onnx or --for onnx-asr, OUT is a folder that this runtime loads: graphs, tokens, and a README with the
command that runs them.

With --format safetensors, OUT is a folder with the weights and a plain configuration of the encoder, and of the CTC
decoder if the model has one. Load it in Python without NeMo:
  nemo_squeezeformer.plain.load("OUT")"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION)
    add_model(parser)
    add = parser.add_argument
    add(
        "--output",
        "-o",
        metavar="OUT",
        type=Path,
        required=True,
        help="file *.onnx, or folder for --for and safetensors",
    )
    add("--format", choices=("onnx", "safetensors"), default="onnx", help="output format (default: onnx)")
    add("--force", action="store_true", help="overwrite existing files")
    add(
        "--att-context-size",
        type=context_size,
        metavar="LEFT,RIGHT",
        help="left context and look-ahead in encoder frames, for example 156,11 or [156, 11] (default: the model's)",
    )
    add_verbose(parser)
    for_onnx = parser.add_argument_group("options for ONNX")
    onnx = for_onnx.add_argument
    onnx("--for", dest="runtime", choices=RUNTIMES, help="write a folder for this runtime, instead of a file")
    onnx("--decoder", choices=("ctc", "rnnt"), help="decoder of a hybrid model (default: the model's own choice)")
    onnx("--offline", action="store_true", help="export for whole utterances, without caches (default: for streams)")
    weights = for_onnx.add_mutually_exclusive_group().add_argument
    weights(
        "--int8",
        action="store_true",
        help="quantize the linear layers of the encoder to int8: the file has between a third and a half of the size, "
        "the model runs faster, and the output is a little less exact",
    )
    weights(
        "--float16",
        action="store_true",
        help="compute the encoder in float16: the file has half of the size, for GPUs and other accelerators",
    )
    onnx(
        "--calibrate",
        metavar="MANIFEST",
        type=Path,
        help="quantize to int8 with scales of activations that are measured on the recordings of a manifest",
    )
    onnx("--opset", type=int, metavar="N", help="ONNX opset version from 13 to 23 (default: NeMo's choice)")


def main(args: argparse.Namespace) -> int:
    """Write the files, print the names of the files, and return 0.

    Raises:
        UserError: OUT exists, or the name does not fit the format. The model does not exist, or the model cannot have
            this ``att_context_size``. ``model_files.export`` or ``weights.save`` refuses the model.
    """
    plain = args.format == "safetensors"
    _check_plain(args) if plain else _check_onnx(args)
    check_model(args.model)
    with quiet(args.verbose):
        import torch

        from nemo_squeezeformer.transcription import models
        from nemo_squeezeformer.transcription.live.contexts import set_context

        model = models.load_model(args.model, torch.device("cpu"), args.verbose)
        models.choose_decoder(model, args.decoder)
        if args.att_context_size is not None:
            try:
                set_context(model, args.att_context_size)
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
    check_opset(args.opset)
    if args.float16 and args.calibrate:
        raise UserError("--calibrate is for int8; leave out --float16 or --calibrate")
    if args.calibrate:
        from nemo_squeezeformer.deployment.onnx.calibration import check_calibration

        check_calibration(args.calibrate)
    if not args.runtime and output.suffix != ".onnx":
        raise UserError(f"--output {output}: give a name that ends in .onnx, or --format safetensors")
    require_folder(output, f"--output {output}", size_of(args.model))
    if args.runtime:
        from nemo_squeezeformer.deployment.runtimes.folder import module_of

        refuse_folder(output, module_of(args.runtime).FILES, args.force)
        return
    refuse_existing((output, *transducer_files(output)), args.force)


def _write_onnx(args: argparse.Namespace, model: Any) -> list[Path]:
    from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings, export
    from nemo_squeezeformer.deployment.runtimes.folder import write_folder

    weights = "int8" if args.int8 or args.calibrate else "float16" if args.float16 else "float32"
    settings = GraphSettings(not args.offline, args.opset, weights, args.calibrate)
    if args.runtime:
        return write_folder(args.runtime, model, args.output, settings)
    written = export(model, args.output, settings)
    for path in {args.output, *transducer_files(args.output)}.difference(written):
        path.unlink(missing_ok=True)  # --force: a graph of the other decoder must not stay beside the new graphs
    return written


def _check_plain(args: argparse.Namespace) -> None:
    for option in ("for", "decoder", "offline", "int8", "float16", "calibrate", "opset"):
        if getattr(args, "runtime" if option == "for" else option):
            raise UserError(f"--{option} is an option for ONNX; leave it out, or leave out --format safetensors")
    try:
        from nemo_squeezeformer.deployment.weights.saving import FILES
    except ImportError as error:
        raise UserError(f"--format safetensors: {error}") from error
    require_folder(args.output, f"--output {args.output}", size_of(args.model))
    refuse_folder(args.output, FILES, args.force)


def _write_plain(args: argparse.Namespace, model: Any) -> list[Path]:
    from nemo_squeezeformer.deployment import weights
    from nemo_squeezeformer.deployment.weights.config import ctc_head

    paths = weights.save(model, args.output, force=args.force)
    if ctc_head(model) is None:
        say(f"written: the encoder without the decoder, because the decoder of a {type(model).__name__} needs NeMo")
    elif hasattr(model, "joint"):
        say("written: the encoder and the CTC decoder without the transducer, because the transducer needs NeMo")
    return paths
