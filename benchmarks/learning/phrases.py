"""Phrases of open text: pieces of the sentences in the documentation strings of installed packages.

    python -m benchmarks.learning.phrases > phrases.txt

constraints.txt fixes the packages, so machines with the same version of Python find the same phrases. Phrases are
short, because a small encoder then learns to align text and audio in fewer steps.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "lightning", "nemo", "transformers")
SENTENCE = re.compile(r"(?<![\w`'\"(])[A-Z][a-z]*(?:,? [a-z]+(?:-[a-z]+)?){4,13}(?=[.](?:\s|$))")
FEWEST = 3  # a phrase with a word that occurs less often in all phrases is left out
LENGTHS = (3, 4, 5)  # the numbers of words of the phrases of a sentence, in turn


def main() -> None:
    print("\n".join(phrases()))


def phrases() -> list[str]:
    """Return the different phrases in lowercase letters, in the order of the files."""
    found = list(dict.fromkeys(phrase for text in texts() for each in sentences(text) for phrase in pieces(each)))
    times = Counter(word for phrase in found for word in phrase.split())
    return [phrase for phrase in found if all(times[word] >= FEWEST for word in phrase.split())]


def pieces(sentence: str) -> Iterator[str]:
    """Yield the phrases of a sentence. The last words are left out if they are too few for a phrase."""
    words = sentence.split()
    for length in cycle(LENGTHS):
        if len(words) < length:
            return
        yield " ".join(words[:length])
        words = words[length:]


def texts() -> Iterator[str]:
    """Yield the documentation strings of all Python files of the packages that are installed."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise SystemExit(f"the package {name} is not installed, but the phrases come from its texts; run make test")
        for folder in spec.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                yield from _of_file(path)


def _of_file(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # templates and tests of the packages
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of 5 to 14 words of a documentation string, in lowercase letters without punctuation."""
    for paragraph in text.split("\n\n"):
        for sentence in SENTENCE.findall(" ".join(paragraph.split())):
            yield sentence.lower().replace(",", "").replace("-", " ")


if __name__ == "__main__":
    main()
