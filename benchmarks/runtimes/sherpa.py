"""sherpa-onnx with exported folders, and the text that a model of NeMo has for the features of sherpa-onnx."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sherpa_onnx
import soundfile
import torch

from benchmarks.runtimes.kaldi_features import OFFLINE_TRANSDUCER, RATE, WHOLE_BAND, features

SILENCE = 2.5  # seconds; more than two steps of 1040 ms


def recognizer(folder: Path, streaming: bool) -> Any:
    """Return sherpa-onnx's recognizer of the files in ``folder``."""
    kind: Any = sherpa_onnx.OnlineRecognizer if streaming else sherpa_onnx.OfflineRecognizer
    files = {path.stem: str(path) for path in folder.iterdir() if path.suffix in (".onnx", ".txt")}
    if "model" in files:
        return kind.from_nemo_ctc(**files)
    return kind.from_transducer(**files, **({} if streaming else {"model_type": "nemo_transducer"}))


def recognized(found: Any, recordings: Sequence[np.ndarray]) -> list[str]:
    """Return the text of each recording. A stream ends with ``SILENCE``."""
    streams = []
    for samples in recordings:
        streams.append(found.create_stream())
        streams[-1].accept_waveform(RATE, samples)
    if isinstance(found, sherpa_onnx.OfflineRecognizer):
        found.decode_streams(streams)
        return [_spaced(stream.result.text) for stream in streams]
    for stream in streams:
        stream.accept_waveform(RATE, np.zeros(int(SILENCE * RATE), dtype=np.float32))
        stream.input_finished()
    while ready := [stream for stream in streams if found.is_ready(stream)]:
        found.decode_streams(ready)
    return [_spaced(found.get_result(stream)) for stream in streams]


def recognized_by_program(folder: Path, recordings: Sequence[np.ndarray]) -> list[str]:
    """Return the texts of an offline transducer from the program ``sherpa-onnx-offline``, with the whole band.

    The options are the options of the README in the folder.
    """
    files = [f"--{path.stem}={path}" for path in folder.iterdir() if path.suffix in (".onnx", ".txt")]
    program = Path(sys.executable).with_name("sherpa-onnx-offline")
    with TemporaryDirectory() as temporary:
        paths = [Path(temporary, f"{number}.wav") for number in range(len(recordings))]
        for path, samples in zip(paths, recordings):
            soundfile.write(path, samples, RATE)
        options = ["--model-type=nemo_transducer", "--high-freq=0", *files]
        done = subprocess.run([program, *options, *paths], capture_output=True, text=True, check=True)
    lines = (done.stdout + done.stderr).splitlines()
    return [_spaced(json.loads(line)["text"]) for line in lines if line.startswith("{")]


@torch.inference_mode()
def expected(model: Any, recordings: Sequence[np.ndarray], streaming: bool, whole_band: bool = False) -> list[str]:
    """Return the texts of ``model``, before its export, for the features of sherpa-onnx.

    NeMo encodes each recording as a whole, and decodes the frames that sherpa-onnx decodes: all frames, or in a stream
    the frames of the complete steps. With ``whole_band``, offline transducers have the band of ``--high-freq=0``.
    """
    transducer = is_transducer(model)
    texts = []
    for samples in recordings:
        form = (WHOLE_BAND if whole_band else OFFLINE_TRANSDUCER) if transducer and not streaming else {}
        if streaming:
            samples = np.concatenate([samples, np.zeros(int(SILENCE * RATE), dtype=np.float32)])
        mel = features(samples, model.cfg.preprocessor.normalize == "per_feature", **form)
        length = torch.tensor([mel.shape[1]])
        encoded, lengths = model.encoder(audio_signal=torch.from_numpy(mel)[None], length=length)
        if streaming:
            lengths = torch.tensor([_frames(model.encoder, mel.shape[1])])
        texts.append(_text(model, encoded[:, :, : lengths[0]], lengths, transducer))
    return texts


def is_transducer(model: Any) -> bool:
    """Return True if the chosen decoder of ``model`` is a transducer."""
    return getattr(model, "cur_decoder", "rnnt" if hasattr(model, "joint") else "ctc") == "rnnt"


def _frames(encoder: Any, features: int) -> int:
    """Return the number of encoder frames after the complete steps. sherpa-onnx waits for one more frame."""
    config = encoder.streaming_cfg
    shift = encoder.subsampling_factor * config.valid_out_len
    before = encoder.subsampling_factor * config.drop_extra_pre_encoded
    sizes = (config.pre_encode_cache_size, config.chunk_size)
    window = sum(size[1] if isinstance(size, list) else size for size in sizes) - before
    count = max(0, (features - 1 - max(window, shift)) // shift + 1)
    return count * config.valid_out_len


def _text(model: Any, encoded: torch.Tensor, lengths: torch.Tensor, transducer: bool) -> str:
    if transducer:
        (found,) = model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
        return _written(found.text)
    decoder = getattr(model, "ctc_decoder", model.decoder)
    decoding = getattr(model, "ctc_decoding", model.decoding)
    (found,) = decoding.ctc_decoder_predictions_tensor(decoder(encoder_output=encoded), lengths, return_hypotheses=True)
    return _written(found.text)


def _written(text: str) -> str:
    """Return the text with the unknown token as in tokens.txt."""
    return _spaced(text.replace(" \u2047 ", "<unk>"))


def _spaced(text: str) -> str:
    """Return the text with single spaces, and without control tokens, which have no text in NeMo."""
    return " ".join(re.sub(r"<control-\d+>", "", text).split())
