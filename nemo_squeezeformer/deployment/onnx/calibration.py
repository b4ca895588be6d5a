"""The inputs of an encoder's graph for the recordings of a manifest. Calibration runs the graph on these inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_squeezeformer.deployment.onnx.description import CACHES, describe_steps
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.audio.headers import read_header
from nemo_squeezeformer.files.manifests import Utterance, audio_path, read_rows

RECORDINGS = 64  # largest number of recordings, to limit the time
LONGEST = 20  # seconds of a recording that are used, to limit the memory


def recordings(manifest: Path) -> list[Utterance]:
    """Return at most ``RECORDINGS`` recordings of ``manifest``. They are spread evenly over the rows of the manifest.

    Raises:
        UserError: The manifest cannot be read, or the header of a recording cannot be read.
    """
    rows = read_rows(manifest, ("audio_filepath",))
    number = min(RECORDINGS, len(rows))
    return [_utterance(manifest, *rows[i * len(rows) // number]) for i in range(number)]


def check_calibration(manifest: Path) -> None:
    """Raise UserError if a recording for the calibration is missing or has an unreadable header."""
    recordings(manifest)


class CalibrationInputs:
    """The inputs for each run of the graph, in the interface of ONNX Runtime's ``CalibrationDataReader``.

    Args:
        path: Path of the graph in float32.
        model: NeMo model, which computes the features.
        manifest: Path of the manifest.
        streaming: If True, give the steps of a stream for each recording, with the caches of the previous step.

    Raises:
        UserError: A recording cannot be used, or all recordings are too short.
    """

    def __init__(self, path: Path, model: Any, manifest: Path, streaming: bool) -> None:
        given = _features(model, manifest)
        self.runs = _stream_runs(path, model, given) if streaming else map(_whole, given)

    def get_next(self) -> dict[str, Any] | None:
        """Return the inputs of the next run by name, or None after the last run."""
        return next(self.runs, None)


def _utterance(manifest: Path, number: int, row: dict[str, Any]) -> Utterance:
    names = row["audio_filepath"]
    paths = [audio_path(name, manifest) for name in (names if isinstance(names, list) else [names])]
    headers = [read_header(path) for path in paths]
    if problem := next((header.problem for header in headers if header.problem), ""):
        raise UserError(f"{manifest}, line {number}: {problem}")
    offset, duration = row.get("offset") or 0.0, min(row.get("duration") or LONGEST, LONGEST)
    channels = max(len(paths), headers[0].channels)
    row = row | {"duration": duration}
    return Utterance(row, paths if isinstance(names, list) else paths[0], offset, duration, channels)


def _features(model: Any, manifest: Path) -> Iterator[tuple[Any, Any]]:
    """Yield the features (1, F, T) and the lengths (1,) of each recording that has a feature frame."""
    import torch

    from nemo_squeezeformer.transcription.speech import Speech

    speech, found = Speech(recordings(manifest), model.preprocessor.featurizer.sample_rate, channel="average"), False
    for number in range(len(speech)):
        sound = speech[number]
        if sound.problem:
            raise UserError(f"{manifest}: {sound.problem}")
        if sound.samples is None:
            continue
        with torch.no_grad():
            features, lengths = model.preprocessor(
                input_signal=sound.samples[None], length=torch.tensor([len(sound.samples)])
            )
        if lengths.item():
            found = True
            yield features[:, :, : lengths.item()].numpy(), lengths.numpy()
    if not found:
        raise UserError(
            f"{manifest}: all recordings for the calibration are shorter than a feature frame; add longer ones"
        )


def _whole(given: tuple[Any, Any]) -> dict[str, Any]:
    features, lengths = given
    return {"audio_signal": features, "length": lengths}


def _stream_runs(path: Path, model: Any, given: Iterator[tuple[Any, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the inputs of each step of each stream. The graph at ``path`` computes the caches."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    shapes = {
        value.name: [size if isinstance(size, int) else 1 for size in value.shape] for value in session.get_inputs()
    }
    dtypes = {value.name: np.int64 if "int64" in value.type else np.float32 for value in session.get_inputs()}
    steps = describe_steps(model)
    for features, (length,) in given:
        caches = {name: np.zeros(shapes[name], dtypes[name]) for name in CACHES}
        padded = np.pad(features, ((0, 0), (0, 0), (steps["before_start"], steps["window"])))
        for number in range(-(-int(length) // steps["subsampling_factor"] // steps["frames"])):
            first = number * steps["shift"]
            left = min(steps["before_start"] + int(length) - first, steps["window"])
            window = padded[:, :, first : first + steps["window"]]
            run = {"audio_signal": window, "length": np.array([left], dtype=np.int64), **caches}
            yield run
            caches = dict(zip(CACHES, session.run(list(CACHES.values()), run)))
