"""NeMo's reader of audio files with a check of each recording. A recording with a problem does not stop training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from nemo.collections.asr.parts.preprocessing.features import WaveformFeaturizer

from nemo_squeezeformer.integration.recordings.named_batches import Names, with_names

MISSING = 0.5  # in seconds; a shorter part at the end of a recording may be missing, because durations are rounded
MISSING_SHARE = 0.1


class Unusable(torch.Tensor):
    """A second of silence in place of a recording that cannot be used. Tensors made from it have this type."""


class UnusableRecording(ValueError):
    pass


class CheckedFeaturizer(WaveformFeaturizer):
    """A featurizer that checks each recording and returns ``Unusable`` for a recording with a problem.

    The check needs one pass over the samples, before augmentation.

    Args:
        featurizer: NeMo's featurizer of a data set.
        names: the featurizer adds the names of the recordings and the problems to ``names``.
        silence: if True, a recording that consists of zeros is a problem.
    """

    def __init__(self, featurizer: WaveformFeaturizer, names: Names, silence: bool) -> None:
        super().__init__(featurizer.sample_rate, featurizer.int_values, featurizer.augmentor)
        self.names = names
        self.silence = silence
        self._seconds = 0.0  # the duration in the manifest
        self.file_in_archive = ""  # the name of a recording in a tar file

    def process(self, file_path: Any, offset: Any = 0, duration: Any = 0, trim: bool = False, **kwargs: Any) -> Any:
        name = self.file_in_archive or str(file_path)
        self.names.files.append(name)
        self._seconds = 0.0 if trim else float(duration or 0)
        try:
            return super().process(file_path, offset=offset, duration=duration, trim=trim, **kwargs)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            self.names.problems.append((name, " ".join(str(error).split()) or type(error).__name__))
            return torch.zeros(self.sample_rate).as_subclass(Unusable)

    def process_segment(self, audio_segment: Any) -> Any:
        problem = problem_of(audio_segment.samples, self.silence)
        missing = self._seconds - audio_segment.duration
        if not problem and missing > max(MISSING, MISSING_SHARE * self._seconds):
            problem = f"the recording ends after {audio_segment.duration:.2f} s of {self._seconds:.2f} s"
        if problem:
            raise UnusableRecording(problem)
        return super().process_segment(audio_segment)


def problem_of(samples: numpy.ndarray, silence: bool = True) -> str:
    """Return the reason why training cannot use the samples, or an empty string."""
    if samples.size == 0:
        return "the recording has no samples"
    low, high = samples.min(), samples.max()  # NaN if a sample is NaN
    if not (numpy.isfinite(low) and numpy.isfinite(high)):
        return "the recording contains samples that are not finite (NaN or infinity)"
    return "the recording is silent (all samples are 0)" if silence and low == high == 0 else ""


class CheckedCollate:
    """The function of a loader that makes a batch, without the samples that cannot be used, and with the names.

    Args:
        collate: NeMo's function that makes a batch.
        names: the names and problems of the recordings that were read since the previous batch.
    """

    def __init__(self, collate: Callable[[Any], Any], names: Names) -> None:
        self.collate = collate
        self.names = names

    def __call__(self, samples: Any) -> Any:
        names = Names(self.names.files[:], self.names.problems[:], self.names.usable)
        self.names.files.clear()
        self.names.problems.clear()
        self.names.usable = True
        if names.problems:
            kept = _usable(samples)
            names.usable &= bool(kept)
            samples = kept or apply_to_collection(samples, Unusable, lambda part: part.as_subclass(torch.Tensor))
            left_out = {file for file, _ in names.problems}
            names.files = [file for file in names.files if file not in left_out]
        return with_names(self.collate(samples), names)


def _usable(samples: Any) -> Any:
    """Return the usable samples of a batch. A batch of buckets is a list with one list of samples."""
    if not isinstance(samples, list):
        return samples  # a complete batch of Lhotse, which ``CheckedCuts`` checks
    if len(samples) == 1 and isinstance(samples[0], list):
        kept = _usable(samples[0])
        return [kept] if kept else []
    return [sample for sample in samples if not _contains_unusable(sample)]


def _contains_unusable(sample: Any) -> bool:
    found: list[torch.Tensor] = []
    apply_to_collection(sample, Unusable, found.append)
    return bool(found)
