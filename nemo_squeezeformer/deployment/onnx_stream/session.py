"""The encoder of a model in ONNX Runtime.

The inputs of a step are a window of feature frames and the caches. The outputs are the encodings and the next caches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nemo_squeezeformer.deployment.onnx_stream.metadata import parse, transducer_files
from nemo_squeezeformer.errors import UserError

Caches = dict[str, np.ndarray]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session for the graph at ``path``, on the CPU.

    Raises:
        UserError: The file does not exist.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has its own kinds of errors
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} is not a graph that ONNX Runtime can load ({reason}); export the model again"
        ) from error


def run(session: onnxruntime.InferenceSession, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a graph by their ``names``, given its inputs.

    Raises:
        UserError: The names, the shapes or the dtypes in the metadata do not fit the graph.
    """
    try:
        return session.run(names, given)
    except Exception as error:  # ONNX Runtime has its own kinds of errors
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the metadata does not fit the graph ({reason}); export the model again") from error


def initial(caches: list[dict[str, Any]], batch: int) -> Caches:
    """Return the initial caches of ``batch`` streams, by the names of the inputs of the graph.

    ``caches`` is the field ``caches`` of the metadata, or the field ``states`` inside the field ``transducer``.
    """
    return {
        cache["input"]: np.full(
            [batch if size == "batch" else size for size in cache["shape"]], cache["initial"], dtype=cache["dtype"]
        )
        for cache in caches
    }


class Encoder:
    """The graph of the encoder. With a CTC decoder, the outputs of the graph are log-probabilities.

    If the graph is for whole utterances, only the method ``utterance`` is supported.

    Args:
        path: Path of the graph, or the path that was given to the export of a transducer.

    Raises:
        UserError: The file does not exist, or is not a graph with the metadata of this package.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        beside, _ = transducer_files(path)
        self.path = beside if beside.is_file() and not path.is_file() else path
        self.session = open_session(self.path)
        self.metadata = parse(self.session.get_modelmeta().custom_metadata_map, self.path)
        steps = self.metadata["steps"]
        if steps is None:
            return
        self.window, self.shift, self.before_start = steps["window"], steps["shift"], steps["before_start"]
        self.frames, self.factor = steps["frames"], steps["subsampling_factor"]

    @property
    def frame_seconds(self) -> float:
        """The length of an encoder frame in seconds.

        Raises:
            UserError: The metadata does not contain the subsampling factor.
        """
        described = self.metadata["steps"] or self.metadata.get("model")
        factor = described.get("subsampling_factor") if isinstance(described, dict) else None
        if type(factor) is not int or not 0 < factor <= 2**20:
            raise UserError(
                f"{self.path}: the metadata has no subsampling_factor, which --timestamps needs; export the model again"
            )
        return factor * self.metadata["features"]["hop"] / self.metadata["features"]["sample_rate"]

    def utterance(self, features: np.ndarray) -> np.ndarray:
        """Return the encodings of a whole utterance: features (F, T) -> (D, T'), or (T', V) with a CTC decoder."""
        inputs, outputs = self.metadata["inputs"], self.metadata["outputs"]
        lengths = np.array([features.shape[1]], dtype=np.int64)
        given = {inputs["features"]: features[None], inputs["lengths"]: lengths}
        (x,) = run(self.session, [outputs["encodings"]], given)
        return x[0]

    def caches(self, batch: int) -> Caches:
        """Return the caches of ``batch`` streams before the first step."""
        return initial(self.metadata["caches"], batch)

    def step(self, features: np.ndarray, lengths: np.ndarray, caches: Caches) -> tuple[np.ndarray, np.ndarray, Caches]:
        """Run a step of a batch of streams.

        Args:
            features: Feature frames (B, F, window).
            lengths: Number of feature frames in each window up to the end of its stream (B,).
            caches: Caches that the previous step returned, or the initial caches.

        Returns:
            The encodings, the number of valid encodings in each row (B,), and the next caches.
        """
        inputs, outputs = self.metadata["inputs"], self.metadata["outputs"]
        handed = self.metadata["caches"]
        names = [outputs["encodings"], outputs["lengths"], *(cache["output"] for cache in handed)]
        given = {inputs["features"]: features, inputs["lengths"]: lengths, **caches}
        x, valid, *after = run(self.session, names, given)
        return x, valid, {cache["input"]: value for cache, value in zip(handed, after)}


class Stream:
    """A stream that accepts feature frames in pieces of any size, and returns the outputs of each step.

    A step runs as soon as all feature frames in the window of the step are known.
    """

    def __init__(self, encoder: Encoder):
        self.encoder, self.caches = encoder, encoder.caches(1)
        self.features: np.ndarray | None = None  # (F, T), begins with the next window
        self.heard = self.steps = 0  # number of feature frames and of steps so far

    def push(self, features: np.ndarray) -> list[np.ndarray]:
        """Add the feature frames (F, T), and return the valid outputs of each step whose frames are all there.

        Each output is (D, T'), or (T', V) with a CTC decoder.
        """
        if self.features is None:
            self.features = np.zeros((len(features), self.encoder.before_start), dtype=np.float32)
        self.features = np.concatenate([self.features, features], axis=1)
        self.heard += features.shape[1]
        outputs = []
        while self.features.shape[1] >= self.encoder.window:
            outputs.append(self._step(self.encoder.window))
        return outputs

    def finish(self) -> list[np.ndarray]:
        """Return the valid outputs of the remaining steps, and end the stream."""
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
