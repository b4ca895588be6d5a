"""The folder for sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx).

sherpa-onnx reads the settings of a model from text in the metadata of the ONNX file. CTC has one file, ``model.onnx``.
A transducer has three files: the encoder, the prediction network (``decoder.onnx``) and the joint network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.description import describe_steps
from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings, uses_transducer, write_graphs
from nemo_squeezeformer.deployment.onnx.tokens import check_durations, check_network, vocabulary
from nemo_squeezeformer.deployment.runtimes.mel_features import check_features
from nemo_squeezeformer.deployment.runtimes.sherpa_ctc import keep_last_frame
from nemo_squeezeformer.deployment.runtimes.sherpa_readme import readme_of
from nemo_squeezeformer.deployment.runtimes.sherpa_stream import CHANNEL, TIME, Steps, keep_frames
from nemo_squeezeformer.deployment.runtimes.sherpa_tokens import check_tokens
from nemo_squeezeformer.deployment.runtimes.token_file import token_lines
from nemo_squeezeformer.errors import UserError

NAME = "sherpa-onnx"
MODEL, ENCODER, DECODER, JOINER, TOKENS, README = FILES = (
    "model.onnx",
    "encoder.onnx",
    "decoder.onnx",
    "joiner.onnx",
    "tokens.txt",
    "README.md",
)
PREEMPHASIS = 0.97


def check(model: Any, settings: GraphSettings) -> None:
    """Raise UserError if sherpa-onnx cannot run the model in the form of ``settings``."""
    normalize = (None,) if settings.streaming else (None, "per_feature")
    check_features(model.preprocessor, NAME, PREEMPHASIS, normalize, sizes=())
    if settings.streaming:
        describe_steps(model)
    transducer = uses_transducer(model)
    if transducer:
        _check_transducer(model, settings.streaming)
    tokens = vocabulary(model, transducer)["tokens"]
    token_lines(tokens, NAME)
    check_tokens(tokens, transducer)


def write(model: Any, folder: Path, settings: GraphSettings) -> None:
    """Write the files for sherpa-onnx to the empty folder ``folder``."""
    transducer, tokens = uses_transducer(model), vocabulary(model, uses_transducer(model))["tokens"]
    steps = Steps.of(describe_steps(model)) if settings.streaming else None
    found = check_features(model.preprocessor, NAME, PREEMPHASIS, (None, "per_feature"), sizes=())
    described = {
        "model_type": "EncDecRNNTBPEModel" if transducer else "EncDecCTCModelBPE",
        "vocab_size": len(tokens),
        "subsampling_factor": model.encoder.subsampling_factor,
        "normalize_type": found["normalize"] or "",
        "feat_dim": len(found["filterbank"]),
    }
    if transducer:
        described |= _prediction_network(model)
        model.decoder.export(str(folder / DECODER), onnx_opset_version=settings.opset)
        model.joint.export(str(folder / JOINER), onnx_opset_version=settings.opset)
    (encoder, *joint_files) = write_graphs(model, folder / MODEL, settings)
    for file in joint_files:  # NeMo's export of the prediction network and the joint network in one graph
        file.unlink()
    _complete(encoder, described, steps, transducer)
    if transducer:
        encoder.rename(folder / ENCODER)
    (folder / TOKENS).write_text(token_lines(tokens, NAME), encoding="utf-8")
    text = readme_of(model, transducer, settings, len(found["filterbank"]), steps)
    (folder / README).write_text(text, encoding="utf-8")


def _check_transducer(model: Any, streaming: bool) -> None:
    check_network(model, NAME)
    if not getattr(model.joint, "num_extra_outputs", 0):
        return
    check_durations(model, NAME)
    if streaming:
        raise UserError(
            f"{NAME} has no streams of TDT transducers; pass --offline, or --decoder ctc for a hybrid model"
        )


def _prediction_network(model: Any) -> dict[str, Any]:
    import torch

    layers, _, hidden = model.decoder.initialize_state(torch.zeros(1, 1))[0].shape
    tdt = {"url": "tdt"} if getattr(model.joint, "num_extra_outputs", 0) else {}
    return {"pred_rnn_layers": layers, "pred_hidden": hidden, **tdt}


def _complete(path: Path, described: dict[str, Any], steps: Steps | None, transducer: bool) -> None:
    """Change the graph of the encoder at ``path`` for sherpa-onnx, and write the metadata into it."""
    import onnx

    graph = onnx.load(str(path))
    if steps is not None:
        keep_frames(graph, steps)
        described |= {"window_size": steps.given, "chunk_shift": steps.shift} | _cache_sizes(graph.graph)
    elif not transducer:
        keep_last_frame(graph, described["subsampling_factor"], blank=described["vocab_size"])
    for key, value in described.items():
        graph.metadata_props.add(key=key, value=str(value))
    onnx.save(graph, str(path))


def _cache_sizes(graph: Any) -> dict[str, int]:
    """Return the sizes of the caches without the batch."""
    sizes = {}
    for value in graph.input:
        if value.name in (CHANNEL, TIME):
            for number, size in enumerate(value.type.tensor_type.shape.dim[1:], start=1):
                sizes[f"{value.name}_dim{number}"] = size.dim_value
    return sizes
