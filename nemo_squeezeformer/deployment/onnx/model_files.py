"""The export of a model to ONNX files with NeMo's own export.

The metadata of the files contains all other data that a runtime needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.description import describe_graphs, describe_model
from nemo_squeezeformer.deployment.onnx.graphs import for_graphs, unfuse_norms
from nemo_squeezeformer.deployment.onnx.half_precision import to_float16
from nemo_squeezeformer.deployment.onnx.opsets import check_opset
from nemo_squeezeformer.deployment.onnx.quantization import calibrated, check_quantization, quantize
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY, transducer_files
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import all_written_whole
from nemo_squeezeformer.process import extras


@dataclass(frozen=True)
class GraphSettings:
    """The form of the graphs of a model.

    Args:
        streaming: If True, the inputs are caches and chunks for the encoder's ``att_context_size``. Otherwise the
            inputs are whole utterances.
        opset: ONNX opset version in ``opsets.OPSETS``; None means NeMo's choice.
        weights: ``float32``, ``float16``, or ``int8`` for the linear layers of the encoder.
        calibration: Path of a manifest. Its recordings give fixed scales of the activations for ``int8``. None means
            scales that are computed in each run.
    """

    streaming: bool
    opset: int | None = None
    weights: str = "float32"
    calibration: Path | None = None


def export(model: Any, path: Path, settings: GraphSettings) -> list[Path]:
    """Write ``model`` as ONNX, and return the paths of the files.

    The graph contains the encoder after ``optimize_for_inference``. After the export, ``model`` can neither be trained
    nor saved. The files appear only when all files are complete.

    Args:
        model: NeMo model.
        path: Path of the file. A transducer is written to two files in the folder of ``path``. The names of the two
            files are NeMo's prefixes ``encoder-`` and ``decoder_joint-``, followed by the name of ``path``.
        settings: The form of the graphs. Other weights than ``float32`` are for the encoder. The decoder and the joint
            network of a transducer stay in float32.

    Raises:
        UserError: ONNX Runtime does not run a graph of this opset. The model cannot stream, the metadata cannot
            describe the features or the decoder of the model, or a package is missing. The packages are ONNX and, for
            other weights than ``float32``, ONNX Runtime.
    """
    check_export(model, settings)
    described = describe_model(model, uses_transducer(model), settings.streaming, settings.weights)
    with all_written_whole(path.parent) as folder:
        written = write_graphs(model, folder / path.name, settings)
        _write_metadata(written, described, settings.streaming)
    return [path.with_name(file.name) for file in written]


def check_export(model: Any, settings: GraphSettings) -> None:
    """Raise UserError if the opset is unknown, a package is missing, or NeMo cannot export the model."""
    from nemo.collections.asr.modules import ConvASRDecoder

    check_opset(settings.opset)
    _check_packages(settings.weights)
    name = type(model).__name__
    if not hasattr(getattr(model, "encoder", None), "export_cache_support"):
        raise UserError(f"{name} has no encoder that NeMo can export with caches")
    heads = (getattr(model, part, None) for part in ("decoder", "ctc_decoder"))
    if not hasattr(model, "joint") and not any(isinstance(head, ConvASRDecoder) for head in heads):
        raise UserError(f"{name} has neither a CTC decoder nor a transducer, so it cannot be exported to ONNX")
    if hasattr(model, "prompt_kernel"):
        raise UserError(f"{name}: NeMo's export leaves out the prompt, so the graph would compute other text")


def uses_transducer(model: Any) -> bool:
    """Return True if ``model`` decodes with its transducer. A hybrid model has two decoders and uses one of them."""
    return getattr(model, "cur_decoder", "rnnt" if hasattr(model, "joint") else "ctc") == "rnnt"


def write_graphs(model: Any, path: Path, settings: GraphSettings) -> list[Path]:
    """Write the graphs of ``model`` without metadata, and return the paths of the files.

    After this call, ``model`` can neither be trained nor saved. The names of the files are the names of ``export``.
    """
    if settings.streaming:
        model.set_export_config({"cache_support": "True"})
    for_graphs(model.encoder, settings.streaming)
    model.export(str(path), onnx_opset_version=settings.opset)
    written = [*transducer_files(path)] if uses_transducer(model) else [path]
    unfuse_norms(written[0])
    if settings.weights == "int8" and settings.calibration:
        calibrated(written[0], model, settings.calibration, settings.streaming)
    elif settings.weights == "int8":
        quantize(written[0])
    elif settings.weights == "float16":
        to_float16(written[0])
    return written


def _check_packages(weights: str) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"the export needs ONNX ({error}); run: {extras.install('onnx')}") from error
    if weights != "float32":
        check_quantization()


def _write_metadata(paths: list[Path], described: dict[str, Any], streaming: bool) -> None:
    """Write the metadata of all files into the first file of ``paths``, which contains the encoder."""
    import onnx

    graphs = [onnx.load(str(path), load_external_data=False) for path in paths]
    of_graphs = describe_graphs(graphs, streaming)
    if len(paths) > 1:
        of_graphs["transducer"] |= described["transducer"] | {"file": paths[1].name}
    metadata = json.dumps(described | of_graphs, ensure_ascii=False)
    graphs[0].metadata_props.add(key=KEY, value=metadata)
    onnx.save(graphs[0], str(paths[0]))
