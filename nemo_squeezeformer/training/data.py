"""The settings of a recipe that give the location of the data, and the manifest files that these settings name."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

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
        for path in map(os.path.expanduser, named.split(",")):
            if os.path.exists(path) or not any(mark in path for mark in ("{", "(", "[", "<", "_OP_")):
                yield path
            else:
                from nemo.collections.asr.data.audio_to_text import expand_sharded_filepaths

                yield from expand_sharded_filepaths(path, "replicate", 1, 0)
