"""Lhotse's reader of audio with a check of each cut. A cut with a problem does not stop training."""

from __future__ import annotations

from typing import Any

import torch

from nemo_squeezeformer.integration.recordings.checked_audio import problem_of
from nemo_squeezeformer.integration.recordings.named_batches import Names


class CheckedCuts:
    """A reader of a batch of cuts that leaves out the cuts with a problem, as Lhotse's fault-tolerant reader does.

    Args:
        load_audio: the fault-tolerant ``AudioSamples`` of a data set.
        names: the reader adds the names of the recordings and the problems to ``names``.
        whole: if True, a cut with a problem makes the whole batch unusable. The data set then has already made the
            other parts of the batch.
    """

    def __init__(self, load_audio: Any, names: Names, whole: bool = False) -> None:
        self.load_audio = load_audio
        self.names = names
        self.whole = whole

    def __call__(self, cuts: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        asked = {cut.id: _name(cut) for cut in cuts}
        self.names.files.extend(asked.values())
        try:
            audio, lengths, read = self.load_audio(cuts, *args, **kwargs)
        except Exception:
            if any(_can_be_read(cut) for cut in cuts):
                raise
            read = []  # Lhotse fails if no cut of the batch can be read
        problems = {cut.id: "the recording cannot be read" for cut in cuts}
        for row, cut in enumerate(read):
            problems[cut.id] = problem_of(audio[row, ..., : lengths[row]].numpy())
        bad = {name: problem for name, problem in problems.items() if problem}
        if not bad:
            return audio, lengths, read
        self.names.problems.extend((asked[name], problem) for name, problem in bad.items())
        kept = [row for row, cut in enumerate(read) if cut.id not in bad]
        if kept and not self.whole:
            lengths = lengths[kept]
            return (
                audio[kept][..., : int(lengths.max())],
                lengths,
                type(cuts).from_cuts(c for c in read if c.id not in bad),
            )
        self.names.usable = False
        chosen = list(cuts) if self.whole else list(cuts)[:1]
        samples = [cut.num_samples for cut in chosen]
        return (
            torch.zeros(len(chosen), max(samples)),
            torch.tensor(samples, dtype=torch.int32),
            type(cuts).from_cuts(chosen),
        )

    def __getattr__(self, name: str) -> Any:
        if name == "load_audio":  # the object is being unpickled
            raise AttributeError(name)
        return getattr(self.load_audio, name)


def _name(cut: Any) -> str:
    """Return the path of the recording, or the identifier of a cut without a file."""
    sources = getattr(getattr(cut, "recording", None), "sources", None) or []
    paths = [source.source for source in sources if source.type == "file"]
    return str(paths[0]) if paths else str(cut.id)


def _can_be_read(cut: Any) -> bool:
    try:
        cut.load_audio()
    except Exception:
        return False
    return True
