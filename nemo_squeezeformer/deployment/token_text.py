"""The text that tokens spell, from a description of the tokens (``onnx_tokens``) and with nothing but Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SPACE = "\u2581"  # SentencePiece's


def text(tokens: list[int], described: Mapping[str, Any]) -> str:
    """What ``tokens`` spell by ``tokens``, ``units`` and ``leading_spaces`` of ``onnx_stream.metadata``."""
    pieces = [described["tokens"][token] for token in tokens]
    if described["units"] == "characters":
        return "".join(pieces)
    drops = {"none": 0, "one": 1, "all": len(pieces)}[described["leading_spaces"]]
    joined = ""
    for piece in pieces:
        if drops and not joined and piece.startswith(SPACE):
            piece, drops = piece[1:], drops - 1
        joined += piece.replace(SPACE, " ")
    return re.sub("(<0x[0-9A-F]{2}>)+", lambda found: _bytes(found[0]), joined)


def _bytes(tokens: str) -> str:
    return bytes(int(value, 16) for value in re.findall("0x(..)", tokens)).decode("utf-8", errors="replace")
