"""ONNX files of a model by NeMo's own export, and in their metadata all that a runtime needs to know of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemo_squeezeformer import __version__
from nemo_squeezeformer.deployment.onnx.graphs import check_quantization, for_graphs, quantize, unfuse_norms
from nemo_squeezeformer.deployment.onnx.tokens import tokens_of
from nemo_squeezeformer.deployment.onnx_stream.metadata import KEY, ORIGINAL, VERSION
from nemo_squeezeformer.errors import UserError

CACHES = {
    "cache_last_channel": "cache_last_channel_next",
    "cache_last_time": "cache_last_time_next",
    "cache_last_channel_len": "cache_last_channel_next_len",
}
STATES = {"input_states_1": "output_states_1", "input_states_2": "output_states_2"}


def export(model: Any, path: Path, streaming: bool, opset: int | None = None, int8: bool = False) -> list[Path]:
    """Write ``model`` to ``path``, or a transducer beside it to ``encoder-`` and ``decoder_joint-``, NeMo's names.

    The graph is of the encoder after ``optimize_for_inference``, so the model trains no more, nor can it be saved.

    Args:
        streaming: with caches, for chunks of the encoder's ``att_context_size``; or for whole utterances.
        opset: of ONNX; None for NeMo's choice.
        int8: quantise the encoder's linear layers (``onnx_graphs.quantize``); decoder and joint network stay float32.

    Raises:
        UserError: for a model that does not stream, or whose features or decoder the metadata has no words for; without
            the package that writes ONNX or, for ``int8``, ONNX Runtime.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"export needs ONNX ({error}); run `pip install onnx`") from error
    if int8:
        check_quantization()

    if not hasattr(getattr(model, "encoder", None), "export_cache_support"):
        raise UserError(f"{type(model).__name__} has no encoder that NeMo exports with caches")
    transducer = getattr(model, "cur_decoder", "rnnt" if hasattr(model, "joint") else "ctc") == "rnnt"
    found = features(model.preprocessor)
    if streaming and found["normalize"] == ORIGINAL:
        raise UserError("its features are normalised over the whole utterance, which no stream has; pass --offline")
    description: dict[str, Any] = {
        "version": VERSION,
        "model": _model(model) | {"weights": "int8" if int8 else "float32"},
        "features": found,
        "steps": steps(model) if streaming else None,
        **tokens_of(model, transducer),
    }
    if streaming:
        model.set_export_config({"cache_support": "True"})
    for_graphs(model.encoder, streaming)
    model.export(str(path), onnx_opset_version=opset)

    paths = [path.with_name(f"{part}-{path.name}") for part in ("encoder", "decoder_joint")] if transducer else [path]
    unfuse_norms(paths[0])
    if int8:
        quantize(paths[0])
    graphs = [onnx.load(str(written), load_external_data=False) for written in paths]
    encodings, lengths, *_ = [output.name for output in graphs[0].graph.output] + [None]
    description["inputs"] = {"features": "audio_signal", "lengths": "length"}
    description["outputs"] = {"encodings": encodings, "lengths": lengths}
    description["caches"] = _handed_on(graphs[0], CACHES) if streaming else []
    if transducer:
        description["transducer"] |= {
            "file": paths[1].name,
            "inputs": {"encodings": "encoder_outputs", "targets": "targets", "target_lengths": "target_length"},
            "outputs": {"logits": "outputs"},
            "states": _handed_on(graphs[1], STATES),
        }
    graphs[0].metadata_props.add(key=KEY, value=json.dumps(description, ensure_ascii=False))
    onnx.save(graphs[0], str(paths[0]))
    return paths


def steps(model: Any) -> dict[str, Any]:
    """How a stream goes through ``model``; see ``onnx_stream.metadata``.

    Raises:
        UserError: for an encoder that does not stream.
    """
    from nemo_squeezeformer.core.subsampling import CENTRED

    encoder = model.encoder
    if getattr(encoder.pre_encode, "margins", None) == CENTRED:
        raise UserError("its subsampling sees what follows a chunk; build and train the encoder with streaming=True")
    try:
        encoder.setup_streaming_params()
    except ValueError as error:
        raise UserError(str(error)) from error
    config, factor = encoder.streaming_cfg, encoder.subsampling_factor
    chunk, shift, before = map(_further, (config.chunk_size, config.shift_size, config.pre_encode_cache_size))
    frames = config.valid_out_len + config.cache_drop_size
    return {
        "window": before + chunk,
        "shift": shift,
        "before_start": factor * config.drop_extra_pre_encoded,
        "frames": config.valid_out_len,
        "subsampling_factor": factor,
        "latency_ms": 1000 * frames * factor * model.preprocessor.featurizer.hop_length / model.cfg.sample_rate,
        "nemo": {
            "chunk_size": config.chunk_size,
            "shift_size": config.shift_size,
            "pre_encode_cache_size": config.pre_encode_cache_size,
            "drop_extra_pre_encoded": config.drop_extra_pre_encoded,
            "valid_out_len": config.valid_out_len,
            "cache_drop_size": config.cache_drop_size,
        },
    }


def features(preprocessor: Any) -> dict[str, Any]:
    """How samples become features; see ``onnx_stream.metadata``.

    Raises:
        UserError: for a preprocessor that is another, or has a setting that the metadata has no words for.
    """
    import torch

    from nemo_squeezeformer.core import original_mel as original_features

    f: Any = getattr(preprocessor, "featurizer", None)
    if isinstance(f, original_features.OriginalMelSpectrogram):
        return {
            "sample_rate": f.sample_rate,
            "hop": f.hop_length,
            "n_fft": f.n_fft,
            "window": f.window.tolist(),
            "preemphasis": original_features.PREEMPHASIS,
            "magnitude_power": 2.0,
            "filterbank": [_nonzero(row.tolist()) for row in f.filterbank],
            "log": "clamp",
            "log_guard": original_features.LEAST_POWER,
            "normalize": ORIGINAL,
        }
    if type(f).__name__ != "FilterbankFeatures":
        raise UserError(f"{type(preprocessor).__name__} is not NeMo's AudioToMelSpectrogramPreprocessor")
    for name, off in (("exact_pad", False), ("frame_splicing", 1)):
        if getattr(f, name) != off:
            raise UserError(f"preprocessor.{name}={getattr(f, name)} has no place in the metadata; set it to {off}")
    window = torch.ones(f.win_length) if f.window is None else f.window
    normalized = f.normalize in ("per_feature", "all_features") or hasattr(f.normalize, "keys")
    return {
        "sample_rate": f.sample_rate,
        "hop": f.hop_length,
        "n_fft": f.n_fft,
        "window": window.float().tolist(),
        "preemphasis": f.preemph,
        "magnitude_power": f.mag_power,
        "filterbank": [_nonzero(row.tolist()) for row in f.fb[0].float()],
        "log": f.log_zero_guard_type if f.log else None,
        "log_guard": float(f.log_zero_guard_value_fn(torch.zeros(1))),
        "normalize": (f.normalize if isinstance(f.normalize, str) else dict(f.normalize)) if normalized else None,
    }


def _nonzero(weights: Sequence[float]) -> list[Any]:
    """[where they begin, the weights between zeros]"""
    inside = [i for i, weight in enumerate(weights) if weight]
    return [inside[0], list(weights[inside[0] : inside[-1] + 1])] if inside else [0, []]


def _further(size: Any) -> int:
    """Of a size of the first chunk and of further ones, the latter."""
    return size[1] if isinstance(size, (list, tuple)) else size


def _model(model: Any) -> dict[str, Any]:
    import nemo

    return {
        "class": type(model).__name__,
        "att_context_size": list(model.encoder.att_context_size),
        "subsampling_factor": model.encoder.subsampling_factor,
        "nemo_squeezeformer": __version__,
        "nemo": nemo.__version__,
    }


def _handed_on(graph: Any, names: dict[str, str]) -> list[dict[str, Any]]:
    """The inputs of ``graph`` that are outputs of the step before, as the metadata describes them."""
    import onnx

    inputs = {value.name: value.type.tensor_type for value in graph.graph.input}
    return [
        {
            "input": name,
            "output": output,
            "shape": ["batch" if size.dim_param else size.dim_value for size in inputs[name].shape.dim],
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(inputs[name].elem_type).name,
            "initial": 0,
        }
        for name, output in names.items()
    ]
