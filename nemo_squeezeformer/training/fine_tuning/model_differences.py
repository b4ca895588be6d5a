"""Differences of settings that give the weights of a file another meaning in the model that is trained.

The shapes of the weights are equal, so NeMo loads the weights without a message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nemo_squeezeformer.training.settings import value

# The settings of the features, with NeMo's defaults.
FEATURES = {
    "sample_rate": 16000, "normalize": "per_feature", "features": 64, "window_size": 0.02, "window_stride": 0.01,
    "window": "hann", "n_fft": None, "lowfreq": 0, "highfreq": None, "preemph": 0.97, "log": True, "mag_power": 2.0,
}  # fmt: skip
SHOWN = 3  # pieces in a message
# The decoders whose outputs are the pieces of a vocabulary, and the beginnings of the names of their weights.
VOCABULARIES = {"decoder": "decoder.", "joint": "joint.", "aux_ctc.decoder": "ctc_decoder."}


def find(there: Mapping[str, Any], here: Any, taken: Collection[str]) -> Iterator[str]:
    """Yield each difference between the model of a file and the model that is trained, with the remedy.

    Args:
        there: the configuration in the file; it can be empty.
        here: the configuration of the model that is trained.
        taken: the names of the weights that the model takes from the file.
    """
    if not there:
        return
    if any(name.startswith("encoder.") for name in taken):
        yield from of_features(there.get("preprocessor") or {}, value(here, "preprocessor", {}))
    for section, prefix in VOCABULARIES.items():
        if any(name.startswith(prefix) for name in taken):
            yield from _vocabulary(section, _pieces(there, section), _pieces(here, section))


def of_features(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Yield the difference between the features of a file and of the model that is trained.

    Args:
        there: the configuration of the preprocessor in the file; it can be empty.
        here: the configuration of the preprocessor of the model; it can be empty.
    """
    kinds = [str(each.get("_target_", "")).rpartition(".")[2] for each in (there, here)]
    if there and here and kinds[0] != kinds[1]:
        yield (
            f"the encoder has learned the features of {kinds[0]}, but model.preprocessor is {kinds[1]}, so the encoder "
            "must learn new features; use the recipe of the file"
        )
        return
    changed = {
        name: (there.get(name, usual), here.get(name, usual))
        for name, usual in FEATURES.items()
        if there and here and there.get(name, usual) != here.get(name, usual)
    }
    if changed:
        words = ", ".join(f"{name} is {old} in the file and {new} in the model" for name, (old, new) in changed.items())
        remedy = " ".join(f"model.preprocessor.{name}={_shown(old)}" for name, (old, _) in changed.items())
        yield (
            f"the encoder has learned other features: {words}; the encoder must learn again from the new features: set "
            f"{remedy}"
        )


def _shown(setting: Any) -> Any:
    return "null" if setting is None else str(setting).lower() if isinstance(setting, bool) else setting


def _pieces(config: Any, section: str) -> list[str]:
    found: Any = config
    for name in section.split("."):
        found = (found or {}).get(name)
    return [str(piece) for piece in (found or {}).get("vocabulary") or []]


def _vocabulary(section: str, there: list[str], here: list[str]) -> Iterator[str]:
    other = [number for number, (old, new) in enumerate(zip(there, here)) if old != new]
    if len(there) != len(here) or not other:
        return
    pairs = ", ".join(f"{number} is {there[number]!r} and becomes {here[number]!r}" for number in other[:SHOWN])
    more = f", and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    yield (
        f"{len(other)} of {len(there)} outputs of model.{section} have another meaning than in the file: output {pairs}"
        f"{more}; use the tokenizer or the labels of the file, or leave out the weights of the decoder with exclude"
    )
