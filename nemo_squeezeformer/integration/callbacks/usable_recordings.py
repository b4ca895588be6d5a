"""Training, validation and tests leave out the recordings that cannot be used, and name these recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import webdataset
from lightning.pytorch import Callback, LightningModule, Trainer
from nemo.collections.asr.parts.preprocessing.features import WaveformFeaturizer
from nemo.core.classes.common import Serialization
from nemo.utils import logging
from torch.utils.data import DataLoader

from nemo_squeezeformer.integration.recordings.checked_audio import CheckedCollate, CheckedFeaturizer
from nemo_squeezeformer.integration.recordings.checked_cuts import CheckedCuts
from nemo_squeezeformer.integration.recordings.named_batches import Names, names_of

# This data set makes the targets of a batch before it reads the audio.
TARGETS_FIRST = "LhotseAudioToSpeechE2ESpkDiarDataset"


class UsableRecordings(Callback, Serialization):  # NeMo instantiates only Serialization classes from a configuration
    """A callback that checks each recording when it is read, and leaves out a recording with a problem.

    A recording has a problem if it cannot be read to its end, contains samples that are not finite, or consists of
    zeros. The batch continues without the recording. The callback names the recording and the reason once. If no
    recording of a batch can be used, the batch contains a second of silence, and ``FiniteSteps`` skips the step.
    A label can describe silence. Data sets with class labels therefore keep recordings of zeros, except with Lhotse.

    ``nemo-squeezeformer train`` adds the callback. In other programs, put the callback and ``FiniteSteps`` into
    ``trainer.callbacks``. Recordings of other readers, for example DALI or AIStore, are not checked.
    """

    def __init__(self) -> None:
        self._named: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for loaders in ("_train_dl", "_validation_dl"):
            check_recordings(getattr(pl_module, loaders, None))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_recordings(getattr(pl_module, "_test_dl", None))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self._warn(batch)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self._warn(batch)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self._warn(batch)

    def _warn(self, batch: Any) -> None:
        for file, problem in names_of(batch).problems:
            if file not in self._named:
                self._named.add(file)
                logging.warning(f"{file} is left out: {problem}")


def check_recordings(loaders: Any) -> None:
    """Give checked readers to the data sets of a loader, or of a list of loaders. A second call does nothing."""
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        if not isinstance(loader, DataLoader) or isinstance(loader.collate_fn, CheckedCollate):
            continue
        names = Names()
        for dataset in _datasets(loader.dataset):
            featurizer = getattr(dataset, "featurizer", None)
            if type(featurizer) is WaveformFeaturizer:
                dataset.featurizer = CheckedFeaturizer(featurizer, names, silence=not hasattr(dataset, "label2id"))
                _name_archived(dataset)
            load_audio = getattr(dataset, "load_audio", None)
            if getattr(load_audio, "fault_tolerant", False):
                dataset.load_audio = CheckedCuts(load_audio, names, whole=type(dataset).__name__ == TARGETS_FIRST)
        loader.collate_fn = CheckedCollate(loader.collate_fn, names)


def _datasets(dataset: Any) -> Iterator[Any]:
    """Yield a data set and the data sets that it contains."""
    yield dataset
    inner = [getattr(dataset, name, None) for name in ("dataset", "wrapped_dataset")]
    for one in [*inner, *(getattr(dataset, "datasets", None) or [])]:
        if one is not None:
            yield from _datasets(one)


def _name_archived(dataset: Any) -> None:
    """Tell the featurizer of a data set of tar files the name of each recording. NeMo gives only bytes."""
    pipeline = getattr(getattr(dataset, "_dataset", None), "pipeline", None)
    if pipeline and hasattr(dataset, "_build_sample"):
        pipeline[-1] = webdataset.map(_NamedSample(dataset))


class _NamedSample:
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, member: tuple[Any, ...]) -> Any:
        self.dataset.featurizer.file_in_archive = str(member[1])
        return self.dataset._build_sample(member)
