"""The folder for onnx-asr (https://github.com/istupakov/onnx-asr).

onnx-asr transcribes whole utterances. CTC has one graph, ``model.onnx``. A transducer has two graphs: the encoder, and
the prediction network with the joint network. The names are the same for all precisions, so that
``onnx_asr.load_model(TYPE, FOLDER)`` loads each folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.model_files import GraphSettings, uses_transducer, write_graphs
from nemo_squeezeformer.deployment.onnx.tokens import check_durations, check_network, max_symbols, vocabulary
from nemo_squeezeformer.deployment.runtimes.mel_features import check_features
from nemo_squeezeformer.deployment.runtimes.readme_file import readme
from nemo_squeezeformer.deployment.runtimes.token_file import token_lines
from nemo_squeezeformer.errors import UserError

NAME = "onnx-asr"
GRAPH, VOCABULARY, CONFIG, README = "model.onnx", "vocab.txt", "config.json", "README.md"
FILES = (GRAPH, f"encoder-{GRAPH}", f"decoder_joint-{GRAPH}", VOCABULARY, CONFIG, README)
PREEMPHASIS = 0.97
SIZES = (80, 128)  # numbers of mel features for which onnx-asr has filterbanks
UNLIMITED = 1000  # tokens at one frame, for a model without a limit
BYTE = re.compile("<0x[0-9A-F]{2}>")


def check(model: Any, settings: GraphSettings) -> None:
    """Raise UserError if onnx-asr cannot run the model in the form of ``settings``."""
    if settings.streaming:
        raise UserError(f"{NAME} transcribes whole utterances and has no streams; add --offline")
    check_features(model.preprocessor, NAME, PREEMPHASIS, ("per_feature",), SIZES)
    transducer = uses_transducer(model)
    if transducer:
        _check_transducer(model)
    tokens = vocabulary(model, transducer)["tokens"]
    token_lines(tokens, NAME)
    if found := next((token for token in tokens if BYTE.fullmatch(token)), None):
        raise UserError(
            f"{NAME} does not join tokens of bytes to characters, and this vocabulary has the token {found}; train "
            "with a tokenizer without byte_fallback"
        )


def write(model: Any, folder: Path, settings: GraphSettings) -> None:
    """Write the files for onnx-asr to the empty folder ``folder``."""
    transducer = uses_transducer(model)
    found = check_features(model.preprocessor, NAME, PREEMPHASIS, ("per_feature",), SIZES)
    config = {
        "model_type": _type(model, transducer),
        "features_size": len(found["filterbank"]),
        "subsampling_factor": model.encoder.subsampling_factor,
    }
    if transducer:
        config["max_tokens_per_step"] = max_symbols(model) or UNLIMITED
    lines = token_lines(vocabulary(model, transducer)["tokens"], NAME)
    write_graphs(model, folder / GRAPH, settings)
    (folder / VOCABULARY).write_text(lines, encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / README).write_text(_readme(model, config["model_type"], settings), encoding="utf-8")


def _type(model: Any, transducer: bool) -> str:
    if not transducer:
        return "nemo-conformer-ctc"
    return "nemo-conformer-tdt" if getattr(model.joint, "num_extra_outputs", 0) else "nemo-conformer-rnnt"


def _check_transducer(model: Any) -> None:
    check_network(model, NAME)
    if getattr(model.joint, "num_extra_outputs", 0):
        check_durations(model, NAME)


def _readme(model: Any, kind: str, settings: GraphSettings) -> str:
    python = (
        "import onnx_asr\n\n"
        f'model = onnx_asr.load_model("{kind}", ".")\n'
        'print(model.recognize("audio.wav"))  # a wav file; onnx-asr resamples it to 16 kHz'
    )
    notes = "Run the commands in this folder after `pip install 'onnx-asr[cpu]'`."
    form = f"offline {kind.removeprefix('nemo-conformer-').upper()}, {settings.weights}"
    return readme(NAME, model, form, notes, f"onnx-asr {kind} audio.wav -p .", python)
