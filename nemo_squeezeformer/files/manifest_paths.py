"""The paths of manifests in NeMo's notation for several files, for example ``manifest_{0..511}.jsonl``."""

from __future__ import annotations

import math
import os
import re

from nemo_squeezeformer.errors import UserError

EXTENSIONS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
OPENING, CLOSING = ("(", "[", "<", "_OP_"), (")", "]", ">", "_CL_")  # NeMo reads these marks as braces
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")
MOST = 1_000_000  # files that a path can name


def is_manifest(path: str) -> bool:
    """Return True if the name of a file is the name of a manifest."""
    return path.lower().endswith(EXTENSIONS)


def expanded(path: str) -> list[str]:
    """Return the paths that a path in NeMo's notation names. A path that exists names only itself.

    The rule is the rule of ``expand_sharded_filepaths`` in NeMo's ``collections.asr.data.audio_to_text``. The import of
    NeMo's function would need seconds.

    Raises:
        UserError: the braces are not balanced, or the path names more than a million files.
    """
    path = os.path.expanduser(path)
    if os.path.lexists(path) or not any(mark in path for mark in ("{", *OPENING)):
        return [path]
    from braceexpand import braceexpand

    pattern = path
    for marks, brace in ((OPENING, "{"), (CLOSING, "}")):
        for mark in marks:
            pattern = pattern.replace(mark, brace)
    numbers = (abs(int(last) - int(first)) + 1 for first, last in RANGE.findall(pattern))
    if math.prod(numbers) > MOST or pattern.count(",") > MOST:
        raise UserError(f"{path} names more than {MOST:,} files; correct the numbers in the braces")
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError:  # UnbalancedBracesError of braceexpand
        raise UserError(f"{path}: a brace is not closed or not opened; write for example rows_{{0..3}}.jsonl") from None
