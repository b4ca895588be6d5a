"""What names the data in a data section of a recipe, and the manifests behind it."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

SOURCES = ("manifest_filepath", "cuts_path", "shar_path", "input_cfg", "hf_data_cfg")  # NeMo's settings


def is_named(section: Mapping[str, Any] | None) -> bool:
    """Whether a resolved data section, such as ``model.train_ds``, says where its data is."""
    return any((section or {}).get(source) not in (None, "", [], "???") for source in SOURCES)


def manifest_files(named: Any) -> Iterator[str]:
    """The files behind a ``manifest_filepath``: joined by commas, in (nested) lists, or sharded.

    Shards are written as NeMo reads them: ``manifest__OP_0..511_CL_.json``, or with braces.
    """
    if isinstance(named, (list, tuple)):
        for one in named:
            yield from manifest_files(one)
    elif isinstance(named, str):  # no number: Lhotse's weight of the manifest before it
        for path in map(os.path.expanduser, named.split(",")):
            if os.path.exists(path) or not any(mark in path for mark in ("{", "(", "[", "<", "_OP_")):
                yield path
            else:
                from nemo.collections.asr.data.audio_to_text import expand_sharded_filepaths

                yield from expand_sharded_filepaths(path, "replicate", 1, 0)
