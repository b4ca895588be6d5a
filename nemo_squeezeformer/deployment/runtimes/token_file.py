"""The file of tokens for sherpa-onnx and onnx-asr: a line ``TOKEN NUMBER`` for each token, and the blank last."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_squeezeformer.deployment.token_text import SPACE
from nemo_squeezeformer.errors import UserError

BLANK = "<blk>"
UNKNOWN = "<unk>"


def token_lines(tokens: Sequence[str], runtime: str) -> str:
    """Return the content of the file.

    Args:
        tokens: Text of each token, from ``onnx.tokens``. A space is written as ``\u2581``.
        runtime: Name of the runtime, for the message.

    Raises:
        UserError: The file cannot hold a token.
    """
    written = [_written(token, number) for number, token in enumerate(tokens)]
    for number, token in enumerate(written):
        if any(char.isspace() for char in token):
            raise UserError(
                f"{runtime} reads a line `TOKEN NUMBER` for each token, and such a line cannot contain token {number}, "
                f"{tokens[number]!r}; train with a vocabulary without white space in tokens"
            )
        if token == BLANK or token in written[:number]:
            raise UserError(
                f"{runtime} needs different tokens, and the token {token!r} exists twice in this vocabulary"
            )
    return "".join(f"{token} {number}\n" for number, token in enumerate([*written, BLANK]))


def _written(token: str, number: int) -> str:
    if not token:  # a control token, for example the end of a sentence; speech does not contain this token
        return f"<control-{number}>"
    if token == " \u2047 ":  # the text of an unknown token
        return UNKNOWN
    return SPACE if token == " " else token
