"""The description of a model that a runtime needs in addition to the graphs.

The module ``onnx_stream.metadata`` documents the format of the description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer import __version__
from nemo_squeezeformer.core.original_mel import LEAST_POWER, PREEMPHASIS, OriginalMelSpectrogram
from nemo_squeezeformer.deployment.onnx.tokens import tokens_of
from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL, VERSION
from nemo_squeezeformer.errors import UserError

CACHES = {
    "cache_last_channel": "cache_last_channel_next",
    "cache_last_time": "cache_last_time_next",
    "cache_last_channel_len": "cache_last_channel_next_len",
}
STATES = {"input_states_1": "output_states_1", "input_states_2": "output_states_2"}


def describe_model(model: Any, transducer: bool, streaming: bool, weights: str) -> dict[str, Any]:
    """Return the fields of the metadata that come from the model. ``describe_graphs`` returns the other fields.

    Args:
        model: NeMo model.
        transducer: If True, describe the transducer decoder. Otherwise describe the CTC decoder.
        streaming: If True, describe the steps of a stream.
        weights: ``float32``, ``int8`` or ``float16``.

    Raises:
        UserError: The model cannot stream, or the metadata cannot describe the features or the decoder of the model.
    """
    features = describe_features(model.preprocessor)
    if streaming and features["normalize"] == ORIGINAL:
        raise UserError(
            "the features are normalized over the whole utterance, which is unknown in a stream; add --offline"
        )
    return {
        "version": VERSION,
        "model": _versions(model) | {"weights": weights},
        "features": features,
        "steps": describe_steps(model) if streaming else None,
        **tokens_of(model, transducer),
    }


def describe_graphs(graphs: Sequence[Any], streaming: bool) -> dict[str, Any]:
    """Return the names of inputs, outputs and caches of the graphs.

    The first graph is the encoder. The second graph of a transducer contains the decoder and the joint network.
    """
    encodings, lengths, *_ = [output.name for output in graphs[0].graph.output] + [None]
    described: dict[str, Any] = {
        "inputs": {"features": "audio_signal", "lengths": "length"},
        "outputs": {"encodings": encodings, "lengths": lengths},
        "caches": _handed_on(graphs[0], CACHES) if streaming else [],
    }
    if len(graphs) > 1:
        described["transducer"] = {
            "inputs": {"encodings": "encoder_outputs", "targets": "targets", "target_lengths": "target_length"},
            "outputs": {"logits": "outputs"},
            "states": _handed_on(graphs[1], STATES),
        }
    return described


def describe_steps(model: Any) -> dict[str, Any]:
    """Return the field ``steps`` of the metadata: how a stream passes through ``model``. See ``onnx_stream.metadata``.

    Raises:
        UserError: The encoder cannot stream.
    """
    from nemo_squeezeformer.core.frames.margins import CENTRED
    from nemo_squeezeformer.integration.latency import feature_ms, further, latency_ms

    encoder = model.encoder
    if getattr(encoder.pre_encode, "margins", None) == CENTRED:
        raise UserError(
            "this model is not for streams, because its subsampling sees frames after the chunk; add --offline"
        )
    try:
        encoder.setup_streaming_params()
    except ValueError as error:
        raise UserError(f"{error}; add --offline for a graph of whole utterances") from error
    config, factor = encoder.streaming_cfg, encoder.subsampling_factor
    chunk, shift, before = map(further, (config.chunk_size, config.shift_size, config.pre_encode_cache_size))
    return {
        "window": before + chunk,
        "shift": shift,
        "before_start": factor * config.drop_extra_pre_encoded,
        "frames": config.valid_out_len,
        "subsampling_factor": factor,
        "latency_ms": latency_ms(encoder, feature_ms(model.preprocessor)),
        "nemo": {
            "chunk_size": config.chunk_size,
            "shift_size": config.shift_size,
            "pre_encode_cache_size": config.pre_encode_cache_size,
            "drop_extra_pre_encoded": config.drop_extra_pre_encoded,
            "valid_out_len": config.valid_out_len,
            "cache_drop_size": config.cache_drop_size,
        },
    }


def describe_features(preprocessor: Any) -> dict[str, Any]:
    """Return the field ``features`` of the metadata: how samples become features. See ``onnx_stream.metadata``.

    Raises:
        UserError: The metadata cannot describe the preprocessor or one of its settings.
    """
    featurizer: Any = getattr(preprocessor, "featurizer", None)
    if isinstance(featurizer, OriginalMelSpectrogram):
        return _original_features(featurizer)
    if type(featurizer).__name__ != "FilterbankFeatures":
        raise UserError(
            f"preprocessor={type(preprocessor).__name__}: expected NeMo's AudioToMelSpectrogramPreprocessor or "
            "OriginalMelSpectrogramPreprocessor"
        )
    for name, off in (("exact_pad", False), ("frame_splicing", 1)):
        if getattr(featurizer, name) != off:
            setting = f"preprocessor.{name}={getattr(featurizer, name)}"
            raise UserError(f"{setting}: the metadata cannot describe this setting; set it to {off}")
    return _nemo_features(featurizer)


def _original_features(f: OriginalMelSpectrogram) -> dict[str, Any]:
    return {
        "sample_rate": f.sample_rate,
        "hop": f.hop_length,
        "n_fft": f.n_fft,
        "window": f.window.tolist(),
        "preemphasis": PREEMPHASIS,
        "magnitude_power": 2.0,
        "filterbank": [_nonzero(row.tolist()) for row in f.filterbank],
        "log": "clamp",
        "log_guard": LEAST_POWER,
        "normalize": ORIGINAL,
    }


def _nemo_features(f: Any) -> dict[str, Any]:
    import torch

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
        "normalize": _plain(f.normalize) if normalized else None,
    }


def _plain(normalize: Any) -> str | dict[str, list[float]]:
    """Return the kind of normalization, or the fixed means and deviations, as values of JSON."""
    return normalize if isinstance(normalize, str) else {name: list(values) for name, values in normalize.items()}


def _nonzero(weights: Sequence[float]) -> list[Any]:
    """Return the index of the first nonzero weight, and the weights from this index to the last nonzero weight."""
    inside = [i for i, weight in enumerate(weights) if weight]
    return [inside[0], list(weights[inside[0] : inside[-1] + 1])] if inside else [0, []]


def _versions(model: Any) -> dict[str, Any]:
    import nemo

    return {
        "class": type(model).__name__,
        "att_context_size": list(model.encoder.att_context_size),
        "subsampling_factor": model.encoder.subsampling_factor,
        "nemo_squeezeformer": __version__,
        "nemo": nemo.__version__,
    }


def _handed_on(graph: Any, names: dict[str, str]) -> list[dict[str, Any]]:
    """Return the description of the inputs of ``graph`` that are outputs of the previous step.

    ``names`` maps the name of each input to the name of the output that becomes this input.
    """
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
