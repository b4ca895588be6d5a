"""The conversion of tokens to text, from the description that ``onnx.tokens`` returns.

The conversion needs only the Python standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SPACE = "\u2581"  # the space of SentencePiece


def text(tokens: list[int], described: Mapping[str, Any]) -> str:
    """Return the text of ``tokens``.

    Args:
        tokens: Numbers of the tokens.
        described: The fields ``tokens``, ``units`` and ``leading_spaces``, which ``onnx_stream.metadata`` describes.
    """
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
