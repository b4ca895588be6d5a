"""Find phrases that make a sentence hard to read, and print what to write instead.

    python scripts/check_words.py            # every tracked file
    python scripts/check_words.py FILE...

The program searches the comments and strings of Python files, the text outside of code in Markdown files, and the whole
text of other files. The exit status is 1 if the program finds a phrase.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".cfg", ".cff", ".ipynb", ""}
NOT_SEARCHED = {"LICENSE", "check_words.py", "test_check_words.py"}
REPEAT = "repeat the noun"
PHRASES = {
    r"of which": f"start a new sentence, and {REPEAT}",
    r"so many": '"the number of", with the noun',
    r"(?-i:none) of": '"no", with the noun',
    r"there (?:is|are|was|were) (?-i:none)": '"unknown", "missing" or "no", with the noun',
    r"(?:is|are|was|were|be|has|have|needs?|gets?|makes?) (?-i:none)": '"no", with the noun',
    r"and (?-i:none)": '"and no", with the noun',
    r"(?:is|are) left of": "name what remains",
    r"the other way round": "say both directions",
    r"those (?:of|that|which|whose|who|with|in|from|for|after|before|behind|at|by|on|are|is)": REPEAT,
    r"that of": REPEAT,
    r"(?:the|these|its|last|first|next|new|old|other|own|right|wrong) ones": REPEAT,
    r"hangs? on": '"depends on"',
    r"nothing but": '"only"',
    r"as (?:it is|they are) written": '"the reference implementation"',
    r"stands? in for": '"replaces"',
    r"forms? for training": '"the fast implementation of training"',
    r"endless margins?": '"unlimited zero padding"',
    r"without end": '"unlimited"',
    r"to and fro": '"in both directions"',
    r"whoever": "name the user",
}  # fmt: skip
PATTERN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in PHRASES), re.IGNORECASE)
QUOTED = re.compile(r"``?[^`]*``?")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def blank(match: re.Match[str]) -> str:
    """Replace each character of the match by a space, except line ends, so that line numbers stay the same."""
    return re.sub(r"[^\n]", " ", match.group())


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each part of a file that people read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in kinds:
                yield token.start[0], token.string
    else:
        yield 1, FENCE.sub(blank, text) if path.suffix == ".md" else text


def phrases(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line number and the words of each phrase of ``PHRASES`` in a file. A phrase may span two lines."""
    for first, text in prose(path):
        words = re.sub(r"[\s#]", " ", QUOTED.sub(blank, text))
        for match in PATTERN.finditer(words):
            yield first + text.count("\n", 0, match.start()), match.group()


def remedy(phrase: str) -> str:
    """Return what to write instead of a phrase."""
    return next(words for pattern, words in PHRASES.items() if re.fullmatch(pattern, phrase, re.IGNORECASE))


def tracked() -> list[Path]:
    """Return the text files that git tracks, and new files that git does not ignore."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names.check_returncode()
    return [ROOT / name for name in names.stdout.splitlines() if Path(name).suffix in SUFFIXES]


def main(arguments: list[str]) -> int:
    found = 0
    for path in [Path(name) for name in arguments] or tracked():
        if not path.is_file() or path.name in NOT_SEARCHED:
            continue
        for line, phrase in phrases(path):
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            print(f"{name}:{line}: {phrase!r}; write instead: {remedy(phrase)}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
