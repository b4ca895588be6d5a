"""ARPA files of token n-grams, in the form that NeMo's NGPU-LM reads.

A token is a character in this file: the token with the number ``i`` is ``chr(i + 100)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nemo_squeezeformer.errors import UserError

if TYPE_CHECKING:
    from nemo_squeezeformer.transcription.decoding.kneser_ney import Order

OFFSET = 100  # NeMo's DEFAULT_TOKEN_OFFSET
SPECIAL = ("<s>", "</s>", "<unk>")
UNKNOWN = -1  # instead of the number of a token
REMEDY = "make the file with `nemo-squeezeformer lm`"
START_WEIGHT = "-99"  # ARPA's logarithm of zero: nothing predicts the start of a sentence


def write_arpa(orders: Sequence[Order], tokens: int, path: Path) -> None:
    """Write the n-grams of ``kneser_ney.estimate`` for a vocabulary of ``tokens`` tokens."""
    names = [*(chr(token + OFFSET) for token in range(tokens)), "<s>", "</s>"]
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(order.symbols)}\n" for n, order in enumerate(orders, start=1))
        for n, order in enumerate(orders, start=1):
            file.write(f"\n\\{n}-grams:\n")
            file.writelines(_lines(order, names, with_backoff=n < len(orders)))
        file.write("\n\\end\\\n")


def _lines(order: Order, names: Sequence[str], with_backoff: bool) -> Iterator[str]:
    import numpy as np

    backoffs = np.log10(np.maximum(order.backoff, 1e-99)).tolist()
    for symbols, probability, backoff in zip(order.symbols.tolist(), order.probability.tolist(), backoffs):
        weight = f"{math.log10(probability):.6f}" if probability > 0 else START_WEIGHT
        end = f"\t{backoff:.6f}" if with_backoff else ""
        yield f"{weight}\t{' '.join(names[symbol] for symbol in symbols)}{end}\n"


class Tokens(NamedTuple):
    """The tokens of an ARPA file.

    Attributes:
        largest: the largest number of a token, or -1.
        complete: True if the file has each token of its model, as the files of ``write_arpa`` have. The files of other
            programs have ``<unk>`` instead of the tokens that their text does not have.
    """

    largest: int
    complete: bool


def read_tokens(path: Path, called: str) -> Tokens:
    """Return the tokens of an ARPA file. Only the 1-grams are read.

    Args:
        called: the beginning of the message of an error.

    Raises:
        UserError: the file is not an ARPA file, its n-grams consist of words, or it has only 1-grams.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            if file.readline(20).strip() != "\\data\\":
                raise UserError(f"{called} is neither an ARPA file nor a .nemo file; {REMEDY}")
            order = 0
            for line in file:
                if line.startswith("ngram"):
                    order += 1
                elif line.startswith("\\1-grams:"):
                    break
            if order < 2:
                raise UserError(f"{called} has no 2-grams, and NeMo reads only longer n-grams; {REMEDY}")
            found = set(_tokens(file, called))
            numbers = found - {UNKNOWN}
            largest = max(numbers, default=-1)
            return Tokens(largest, UNKNOWN not in found and len(numbers) == largest + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{called} cannot be read ({' '.join(str(error).split())}); {REMEDY}") from error


def _tokens(lines: Iterator[str], called: str) -> Iterator[int]:
    """Yield the number of each token, and ``UNKNOWN`` for ``<unk>``."""
    for line in lines:
        if not line.strip("\r\n"):
            return
        weight, symbol, *backoff = [*line.rstrip("\r\n").split("\t"), ""][:3]
        if symbol in SPECIAL:
            if symbol == "<unk>":
                yield UNKNOWN
            continue
        if len(symbol) != 1 or ord(symbol) < OFFSET:
            raise UserError(
                f"{called} has the 1-gram {symbol[:40]!r}, so its n-grams consist of words; NeMo's decoders need "
                f"n-grams of the tokens of the model; {REMEDY}"
            )
        if not all(map(_is_finite, (weight, *filter(None, backoff)))):
            raise UserError(f"{called} has the 1-gram {line.strip()!r}, whose weight is not a finite number; {REMEDY}")
        yield ord(symbol) - OFFSET


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
