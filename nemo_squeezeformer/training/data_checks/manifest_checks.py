"""Checks of the manifests of a recipe, before NeMo reads the manifests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.manifest_rows import good_rows
from nemo_squeezeformer.files.manifests import Utterance, read_utterances
from nemo_squeezeformer.training.data import manifest_files
from nemo_squeezeformer.training.data_checks import sample_rates
from nemo_squeezeformer.training.nemo_log import warn
from nemo_squeezeformer.training.settings import value
from nemo_squeezeformer.training.text_rows import SPLITS

REQUIRED = ("audio_filepath", "duration")
# NeMo's models whose data sets select the channel themselves.
SELECT_A_CHANNEL = ("SortformerEncLabelModel",)


def require_manifests(cfg: Any, split: str) -> None:
    """Check that the manifests of ``model.{split}`` exist. A manifest in an object store is not checked.

    Raises:
        UserError: a manifest is missing. The message names the setting and the file.
    """
    named = value(cfg, f"model.{split}.manifest_filepath")
    for path in (path for path in manifest_files(named) if "://" not in path):
        if not os.path.isfile(path):
            raise UserError(f"model.{split}.manifest_filepath={named}: there is no file {path}")


def check_manifests(cfg: Any, split: str, audio: bool) -> None:
    """Check the rows of the manifests of ``model.{split}``. A manifest in an object store is not checked.

    Args:
        audio: if True, also compare each row with its audio file. Audio in tar files and audio that Lhotse reads are
            not compared.

    Raises:
        UserError: NeMo would fail at a row or drop a row. The message names the file, the line and the remedy.
    """
    require_manifests(cfg, split)
    section = f"model.{split}"
    named, lhotse = value(cfg, f"{section}.manifest_filepath"), value(cfg, f"{section}.use_lhotse")
    utterances = list[Utterance]()
    for path in (path for path in manifest_files(named) if "://" not in path):
        if path.endswith(".gz") and not lhotse:
            raise UserError(
                f"{section}.manifest_filepath={path}: NeMo reads a manifest that gzip compressed only with Lhotse; "
                f"decompress it with gunzip, or set {section}.use_lhotse=true (for training: data=lhotse)"
            )
        if audio and not lhotse and not value(cfg, f"{section}.is_tarred"):
            utterances += read_utterances(path, REQUIRED)
        else:
            for _ in good_rows(path, REQUIRED, for_training=True):
                pass
    _warn_of_low_rates(cfg, split, utterances)
    if not _selects_a_channel(cfg):
        _check_channels(section, value(cfg, f"{section}.channel_selector"), utterances)


def _warn_of_low_rates(cfg: Any, split: str, utterances: Sequence[Utterance]) -> None:
    rate, highest = value(cfg, "model.sample_rate", 16000), value(cfg, "model.preprocessor.highfreq")
    for message in sample_rates.find(utterances, rate, highest, SPLITS[split]):
        warn(message)


def characters(named: Any) -> Counter[str]:
    """Return the number of times that each character occurs in the text of local manifests.

    Raises:
        UserError: a row cannot be read. The message names the file and the line.
    """
    seen: Counter[str] = Counter()
    for path in filter(os.path.isfile, manifest_files(named)):
        for _, row in good_rows(path):
            if "label" not in row:  # if the rows have a label, model.labels are classes instead of characters
                seen.update(row.get("text") or "")
    return seen


def _selects_a_channel(cfg: Any) -> bool:
    name = value(cfg, "model_target") or value(cfg, "model.target") or ""
    return str(name).endswith(SELECT_A_CHANNEL)


def _check_channels(section: str, selector: Any, utterances: Sequence[Utterance]) -> None:
    """Raise UserError if NeMo cannot make batches with one channel from the utterances."""
    number = selector if isinstance(selector, int) else 0
    if lacking := next((utterance for utterance in utterances if utterance.channels <= number), None):
        raise UserError(
            f"{section}.channel_selector={number}: {lacking.audio} has no channel {number}, because the numbers of "
            f"channels start at 0; set {section}.channel_selector=average"
        )
    several = [utterance for utterance in utterances if utterance.channels > 1]
    if not several or selector is not None:
        return
    mono = next((utterance for utterance in utterances if utterance.channels == 1), None)
    beside = f" and {mono.audio} has 1 channel" if mono else ""
    raise UserError(
        f"{section}: {len(several)} of {len(utterances)} recordings have several channels (the first is "
        f"{several[0].audio} with {several[0].channels} channels{beside}), and NeMo puts only recordings with one "
        f"channel into a batch; add +{section}.channel_selector=average, or convert the recordings to one channel"
    )
