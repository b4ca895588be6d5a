"""The forms in which a model runs in a runtime: a decoder, whole utterances or streams of a latency, and a runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nemo_squeezeformer.transcription import models
from nemo_squeezeformer.transcription.live import streams as live

WHOLE = [-1, -1]


class Form(NamedTuple):
    """A .nemo file with a decoder and a context.

    Attributes:
        path: the .nemo file.
        decoder: ``ctc`` or ``rnnt`` for a hybrid model, or None.
        context: the ``att_context_size``.
        milliseconds: the latency of a stream, or None for whole utterances.
        names: the name of the decoder, and the name of the form.
    """

    path: Path
    decoder: str | None
    context: list[int]
    milliseconds: int | None
    names: tuple[str, str]

    def load(self) -> Any:
        """Return the model. An export changes the model, so each export needs a new model."""
        model = models.load_model(str(self.path), torch.device("cpu"))
        models.choose_decoder(model, self.decoder)
        if list(model.encoder.att_context_size) != self.context:
            model.encoder.set_default_att_context_size(self.context)
        model.preprocessor.featurizer.dither = 0.0  # as in transcribe() and in streams
        return model


def name_of(path: Path) -> str:
    """Return the name of a model: the name of the file, or of the folder of a file ``model.nemo``."""
    return path.parent.name if path.stem == "model" else path.stem


def forms_of(path: Path) -> Iterator[Form]:
    """Yield each form of the model: each decoder, for whole utterances and for each latency of a streaming model."""
    model = models.load_model(str(path), torch.device("cpu"))
    hybrid, transducer = hasattr(model, "cur_decoder"), hasattr(model, "joint")
    durations = transducer and model.joint.num_extra_outputs > 0
    latencies = {}
    if getattr(model.encoder, "streaming_cfg", None) is not None:
        latencies = {ms: list(size) for size, ms in live.latencies(model).items()}
    for decoder in ("ctc", "rnnt") if hybrid else (None,):
        name = "CTC" if decoder == "ctc" or not transducer else "TDT" if durations else "transducer"
        name = f"{name} of a hybrid" if hybrid else name
        yield Form(path, decoder, WHOLE, None, (name, "whole utterances"))
        for milliseconds, size in sorted(latencies.items()):
            yield Form(path, decoder, size, milliseconds, (name, f"streams, {milliseconds} ms"))


def texts_of(model: Any, form: Form, recordings: Sequence[np.ndarray]) -> list[str]:
    """Return the texts of the commands `transcribe` or `stream`."""
    if form.milliseconds is None:
        found = model.transcribe(list(recordings), batch_size=1, verbose=False)
        return [_spaced(one.text) for one in found]
    streams = live.Streams(model, slots=len(recordings))
    for slot, samples in enumerate(recordings):
        streams.open(slot)
        streams.push(slot, torch.from_numpy(samples))
        streams.end(slot)
    while streams.step(range(len(recordings))):
        pass
    return [_spaced(streams.text(slot)) for slot in range(len(recordings))]


def _spaced(text: str) -> str:
    return " ".join(text.split())
