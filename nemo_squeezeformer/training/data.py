"""The settings of a recipe that give the location of the data, and the manifest files that these settings name."""

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_squeezeformer.files.manifest_paths import expanded

# NeMo's settings for the location of the data.
SOURCES = ("manifest_filepath", "cuts_path", "shar_path", "input_cfg", "hf_data_cfg")


def is_named(section: Mapping[str, Any] | None) -> bool:
    """Return True if a resolved data section, for example ``model.train_ds``, gives the location of data."""
    return any((section or {}).get(source) not in (None, "", [], "???") for source in SOURCES)


def manifest_files(named: Any) -> Iterator[str]:
    """Yield the paths of the manifest files that a ``manifest_filepath`` names.

    The value is a string of paths joined by commas, or a (nested) list of strings. A path can name shards in NeMo's
    notation, for example ``manifest__OP_0..511_CL_.json`` or ``manifest_{0..511}.json``.
    """
    if isinstance(named, (list, tuple)):
        for one in named:
            yield from manifest_files(one)
    elif isinstance(named, str):  # a number in a list is Lhotse's weight of the previous manifest
        for path in named.split(","):
            yield from expanded(path)
