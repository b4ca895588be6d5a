"""The encoder of a streaming model in ONNX Runtime: windows of feature frames and caches in, encodings out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nemo_squeezeformer.deployment.onnx_stream.metadata import ORIGINAL, parse, transducer_files
from nemo_squeezeformer.errors import UserError

Caches = dict[str, np.ndarray]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """The graph at ``path``, on the CPU.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def initial(caches: list[dict[str, Any]], batch: int) -> Caches:
    """``batch`` rows of ``caches``, or states, of the metadata, by the names of their inputs, as streams begin."""
    return {
        cache["input"]: np.full(
            [batch if size == "batch" else size for size in cache["shape"]], cache["initial"], dtype=cache["dtype"]
        )
        for cache in caches
    }


class Encoder:
    """The graph that takes features; with a CTC decoder at its end, its encodings are log-probabilities.

    A graph of whole utterances, with the features of the authors' release, has ``utterance`` alone.

    Raises:
        UserError: for a file that is missing, or of a model that neither streams nor has those features.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        beside, _ = transducer_files(path)
        self.path = beside if beside.is_file() and not path.is_file() else path
        self.session = open_session(self.path)
        self.metadata = parse(self.session.get_modelmeta().custom_metadata_map, self.path)
        steps = self.metadata["steps"]
        if steps is None:
            if self.metadata["features"]["normalize"] != ORIGINAL:
                raise UserError(f"{self.path} takes whole utterances; export a model that streams, without --offline")
            return
        self.window, self.shift, self.before_start = steps["window"], steps["shift"], steps["before_start"]
        self.frames, self.factor = steps["frames"], steps["subsampling_factor"]

    def utterance(self, features: np.ndarray) -> np.ndarray:
        """(F, T) of a whole utterance -> all that the graph makes of it: (D, T'), or (T', V) of a CTC decoder"""
        inputs, outputs = self.metadata["inputs"], self.metadata["outputs"]
        lengths = np.array([features.shape[1]], dtype=np.int64)
        given = {inputs["features"]: features[None], inputs["lengths"]: lengths}
        (x,) = self.session.run([outputs["encodings"]], given)
        return x[0]

    def caches(self, batch: int) -> Caches:
        """What ``batch`` streams hand to their first step."""
        return initial(self.metadata["caches"], batch)

    def step(self, features: np.ndarray, lengths: np.ndarray, caches: Caches) -> tuple[np.ndarray, np.ndarray, Caches]:
        """(B, F, window), (B,) -> the graph's first output, (B,) how many of its frames are valid, the next caches"""
        inputs, outputs = self.metadata["inputs"], self.metadata["outputs"]
        handed = self.metadata["caches"]
        names = [outputs["encodings"], outputs["lengths"], *(cache["output"] for cache in handed)]
        given = {inputs["features"]: features, inputs["lengths"]: lengths, **caches}
        x, valid, *after = self.session.run(names, given)
        return x, valid, {cache["input"]: value for cache, value in zip(handed, after)}


class Stream:
    """One stream: feature frames in, in pieces of any size, and the outputs of each step as soon as it is possible."""

    def __init__(self, encoder: Encoder):
        self.encoder, self.caches = encoder, encoder.caches(1)
        self.features: np.ndarray | None = None  # (F, T) from where the next window begins
        self.heard = self.steps = 0  # feature frames, and steps, so far

    def push(self, features: np.ndarray) -> list[np.ndarray]:
        """(F, T) -> the valid outputs of each step that became possible: (D, T'), or (T', V) of a CTC decoder"""
        if self.features is None:
            self.features = np.zeros((len(features), self.encoder.before_start), dtype=np.float32)
        self.features = np.concatenate([self.features, features], axis=1)
        self.heard += features.shape[1]
        outputs = []
        while self.features.shape[1] >= self.encoder.window:
            outputs.append(self._step(self.encoder.window))
        return outputs

    def finish(self) -> list[np.ndarray]:
        """The same for what is left, which ends the stream."""
        outputs = []
        while self.features is not None and self.steps * self.encoder.frames < -(-self.heard // self.encoder.factor):
            length = self.features.shape[1]
            self.features = np.pad(self.features, ((0, 0), (0, max(self.encoder.window - length, 0))))
            outputs.append(self._step(length))
        return outputs

    def _step(self, length: int) -> np.ndarray:
        assert self.features is not None
        window, lengths = self.features[None, :, : self.encoder.window], np.array([length], dtype=np.int64)
        x, (valid,), self.caches = self.encoder.step(window, lengths, self.caches)
        self.features, self.steps = self.features[:, self.encoder.shift :], self.steps + 1
        return x[0, :valid] if self.encoder.metadata["decoder"] == "ctc" else x[0, :, :valid]
