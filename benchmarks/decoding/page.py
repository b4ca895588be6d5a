"""The page of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring.tables import table

EXPLAINED = """\
Each model is small, and it was trained on one CPU thread. The encoder is Squeezeformer. The tokens are sub-word units.

- The weights are chosen on the development set. The word error rates are measured on the test set. The two sets have
  different speakers, and neither set has a speaker of the training data.
- "digits of speechocean": children and adults who are not native speakers say digits. The model was trained on the
  recordings of "digits", and its texts have many errors.
- The language model is an n-gram model of tokens. The command `lm` makes the same model from the transcripts of the
  training data.
- "time": the processor time of the decoder for one second of audio, without the encoder, on one thread."""


def page(results: Path) -> str:
    """Return the whole page in Markdown."""
    return "\n\n".join(_parts(results)) + "\n"


def _parts(results: Path) -> Iterator[str]:
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    yield "# Decoding"
    yield "`python -m benchmarks.decoding` makes this page. The files in the folder `decoding` have all numbers."
    yield EXPLAINED
    yield _models(found)
    if any(one["kind"] == "hybrid" for one in found):
        yield "The encoder and the CTC decoder of the hybrid model start from the weights of the CTC model."
    yield "## Beam search and a language model"
    yield _search(found)
    yield "## Hotwords"
    yield (
        "For digits, each of the ten words is the only hotword of one measurement. The counts are sums over the ten "
        "measurements, and the word error rate is the mean. For other data, all rare words are the hotwords of one "
        "measurement. A rare word occurs at most three times in the transcripts of the training data. "
        '"found": the number of hotwords in the test set that are recognized. "wrong": the number of hotwords in the '
        "text where another word or no word was said."
    )
    yield _boost(found)
    yield "## Confidence"
    yield (
        "The area under the ROC curve is the probability that a right word has a higher confidence than a wrong word. "
        "0.5 means that the confidence does not separate right and wrong words, and 1 means that it separates them "
        "perfectly. The decoding is greedy."
    )
    yield _confidence(found)
    yield " ".join(f"{each}." for each in dict.fromkeys(one["conditions"] for one in found))


def _models(found: list[dict[str, Any]]) -> str:
    names = ["data", "model", "parameters", "tokens", "steps", "transcripts for training"]
    names += ["development set", "test set"]
    rows = [
        [
            one["spoken"],
            one["kind"],
            f"{one['parameters']:,}",
            str(one["vocabulary"]),
            str(one["steps"]),
            f"{one['train']:,}",
            *(f"{one['utterances'][part]} utterances, {one['words'][part]} words" for part in ("choice", "test")),
        ]
        for one in found
    ]
    return table(names, rows)


def _decoders(found: list[dict[str, Any]]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield the first two cells of a row and the results, for each model and decoder."""
    for one in found:
        for decoder, results in one["decoders"].items():
            called = decoder if one["kind"] == decoder else f"{decoder} of the {one['kind']} model"
            yield [one["spoken"], called], results


def _search(found: list[dict[str, Any]]) -> str:
    names = ["data", "decoder", "search", "language model", "weight", "WER, %", "time, ms"]
    rows = []
    for cells, results in _decoders(found):
        for row in results["search"]:
            search = "greedy" if row["beam"] == 1 else f"beam of {row['beam']}"
            model = f"{row['order']}-grams" if row["order"] else "-"
            weight = f"{row['weight']:g}" if row["order"] else "-"
            rows.append([*cells, search, model, weight, f"{row['test']:.1f}", f"{row['ms_per_second']:.1f}"])
    return table(names, rows)


def _boost(found: list[dict[str, Any]]) -> str:
    names = ["data", "decoder", "search", "weight", "WER, %", "found", "wrong"]
    rows = []
    for cells, results in _decoders(found):
        for row in results["boost"]:
            search = "greedy" if row["beam"] == 1 else f"beam of {row['beam']}"
            counts = [f"{row['right']} of {row['said']}", str(row["wrong"])]
            rows.append([*cells, search, f"{row['weight']:g}", f"{row['wer']:.1f}", *counts])
    return table(names, rows)


def _confidence(found: list[dict[str, Any]]) -> str:
    names = ["data", "decoder", "confidence", "right words", "area under the ROC curve"]
    rows = []
    for cells, results in _decoders(found):
        for row in results["confidence"]:
            test = row["test"]
            rows.append([*cells, row["method"], f"{test['right']} of {test['words']}", f"{test['auc']:.2f}"])
    return table(names, rows)
