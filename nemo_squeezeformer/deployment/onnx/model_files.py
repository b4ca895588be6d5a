"""ONNX files of a model by NeMo's own export, and in their metadata all that a runtime needs to know of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.description import describe_graphs, describe_model
from nemo_squeezeformer.deployment.onnx.graphs import check_quantization, for_graphs, quantize, unfuse_norms
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY, transducer_files
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.outputs import all_written_whole


def export(model: Any, path: Path, streaming: bool, opset: int | None = None, int8: bool = False) -> list[Path]:
    """Write ``model`` to ``path``, or a transducer beside it to ``encoder-`` and ``decoder_joint-``, NeMo's names.

    The graph is of the encoder after ``optimize_for_inference``, so the model trains no more, nor can it be saved.
    The files appear when all of them are complete.

    Args:
        streaming: with caches, for chunks of the encoder's ``att_context_size``; or for whole utterances.
        opset: of ONNX; None for NeMo's choice.
        int8: quantise the encoder's linear layers (``graphs.quantize``); decoder and joint network stay float32.

    Raises:
        UserError: for a model that does not stream, or whose features or decoder the metadata has no words for; without
            the package that writes ONNX or, for ``int8``, ONNX Runtime.
    """
    _check_packages(int8)
    if not hasattr(getattr(model, "encoder", None), "export_cache_support"):
        raise UserError(f"{type(model).__name__} has no encoder that NeMo exports with caches")
    transducer = getattr(model, "cur_decoder", "rnnt" if hasattr(model, "joint") else "ctc") == "rnnt"
    described = describe_model(model, transducer, streaming, "int8" if int8 else "float32")
    if streaming:
        model.set_export_config({"cache_support": "True"})
    for_graphs(model.encoder, streaming)
    with all_written_whole(path.parent) as folder:
        model.export(str(folder / path.name), onnx_opset_version=opset)
        written = [*transducer_files(folder / path.name)] if transducer else [folder / path.name]
        unfuse_norms(written[0])
        if int8:
            quantize(written[0])
        _write_metadata(written, described, streaming)
    return [path.with_name(file.name) for file in written]


def _check_packages(int8: bool) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"export needs ONNX ({error}); run `pip install onnx`") from error
    if int8:
        check_quantization()


def _write_metadata(paths: list[Path], described: dict[str, Any], streaming: bool) -> None:
    """Into the first of ``paths``, the encoder's, about all of them."""
    import onnx

    graphs = [onnx.load(str(path), load_external_data=False) for path in paths]
    of_graphs = describe_graphs(graphs, streaming)
    if len(paths) > 1:
        of_graphs["transducer"] |= described["transducer"] | {"file": paths[1].name}
    metadata = json.dumps(described | of_graphs, ensure_ascii=False)
    graphs[0].metadata_props.add(key=KEY, value=metadata)
    onnx.save(graphs[0], str(paths[0]))
