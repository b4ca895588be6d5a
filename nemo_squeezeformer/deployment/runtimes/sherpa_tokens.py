"""The vocabularies that sherpa-onnx reads in another way than NeMo."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_squeezeformer.deployment.token_text import SPACE
from nemo_squeezeformer.errors import UserError

DROPPED = "SIL"  # the silence of other models; sherpa-onnx leaves this token out of the text of a CTC model
# The first byte of the characters from U+0180 to U+01BF in UTF-8. Vocabularies of byte-level tokens end with it.
BYTE_LEVEL = 0xC6


def check_tokens(tokens: Sequence[str], transducer: bool) -> None:
    """Raise UserError if sherpa-onnx reads ``tokens`` in another way than NeMo."""
    if DROPPED in tokens and not transducer:
        raise UserError(f"sherpa-onnx leaves the token {DROPPED!r} out of every text; train with another vocabulary")
    inside = [token for token in tokens if SPACE in token[1:]]
    if inside:
        raise UserError(
            f"sherpa-onnx writes a space only at the beginning of a token, and {inside[0]!r} has a space inside; train "
            "a tokenizer whose tokens do not cross words"
        )
    if max(max(token.replace(SPACE, "").encode(), default=0) for token in tokens) == BYTE_LEVEL:
        raise UserError(
            "sherpa-onnx takes this vocabulary for byte-level tokens, because the last of its characters is between "
            "U+0180 and U+01BF; add a token with a later character to the vocabulary"
        )
