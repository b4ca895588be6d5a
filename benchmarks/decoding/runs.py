"""All measurements for a model: weights chosen on one half of the data, and results on the other half."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.decoding import measure as measures
from benchmarks.decoding.measure import TRANSDUCER, Encoded
from benchmarks.decoding.train import Plan
from benchmarks.measuring.machine import commit, processor, versions
from benchmarks.measuring.recordings import Recordings, json_lines, rows
from nemo_squeezeformer.transcription.decoding.strategy import CONFIDENCE, Decoding

BEAM = 8
ORDERS = (2, 4, 6)
LM_WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
BOOST_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
SPOKEN = {False: "digits", True: "digits of speechocean"}
METHODS = {
    "entropy, minimum": {"aggregation": "min", "method_cfg": {"name": "entropy"}},
    "entropy, mean": {"aggregation": "mean", "method_cfg": {"name": "entropy"}},
    "probability, minimum": {"aggregation": "min", "method_cfg": {"name": "max_prob", "alpha": 1.0}},
    "probability, mean": {"aggregation": "mean", "method_cfg": {"name": "max_prob", "alpha": 1.0}},
    "probability, product": {"aggregation": "prod", "method_cfg": {"name": "max_prob", "alpha": 1.0}},
}


def halves(rows_of_all: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the first half of the speakers, and the rows of the other speakers."""
    speakers = sorted({row["speaker"] for row in rows_of_all})
    first = set(speakers[: len(speakers) // 2])
    return [row for row in rows_of_all if row["speaker"] in first], [
        row for row in rows_of_all if row["speaker"] not in first
    ]


def parts_of(recordings: Recordings, others: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows for the choice of the weights, and the rows of the test. No speaker is in both lists.

    Args:
        recordings: the recordings of the training. Their dev set is for the choice, and their test set is the test.
            Without a test set, the dev set is divided by speakers.
        others: manifests of other recordings to divide by speakers, or no manifests.
    """
    if others:
        return halves([row for manifest in others for row in rows(manifest)])
    dev = rows(recordings.dev)
    return (dev, rows(recordings.tests["unseen"])) if recordings.tests else halves(dev)


def measure(plan: Plan, recordings: Recordings, path: Path, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the results for the model in the file ``path``. ``parts_of`` describes ``others``."""
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    model = ASRModel.restore_from(str(path), map_location="cpu").eval()
    train = [row["text"] for manifest in recordings.train for row in json_lines(manifest)]
    choice, test = parts_of(recordings, others)
    encoded = {"choice": measures.encode(model, choice), "test": measures.encode(model, test)}
    words = measures.rare_words(train, [row["text"] for row in (*choice, *test)])
    every = sorted({word for row in test for word in row["text"].split()})
    found: dict[str, Any] = {
        **plan._asdict(),
        "spoken": SPOKEN[bool(others)] if plan.data == "digits" else plan.data,
        "conditions": f"{processor()}, one thread. {versions()}",
        "commit": commit(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "train": len(train),
        "utterances": {part: len(each.texts) for part, each in encoded.items()},
        "words": {part: sum(len(text.split()) for text in each.texts) for part, each in encoded.items()},
        "seconds": {part: round(each.seconds, 1) for part, each in encoded.items()},
        "rare": len(words),
        "decoders": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        lms = {n: measures.make_lm(model, train, n, Path(temporary, f"{n}.arpa")) for n in ORDERS}
        for decoder in measures.decoders_of(model):
            found["decoders"][decoder] = {
                "search": search(model, encoded, decoder, lms),
                "boost": boost(model, encoded["test"], decoder, [words] if words else [[word] for word in every]),
                "confidence": confidence(model, encoded, decoder),
            }
    return found


def search(model: Any, encoded: dict[str, Encoded], decoder: str, lms: dict[int, str]) -> list[dict[str, Any]]:
    """Measure greedy decoding and beam search, without a language model and with each language model.

    The beam search of a transducer is slow on a CPU, and is measured with fewer settings.
    """
    results = []
    for beam in (1, BEAM):
        results.append(
            {"beam": beam, "order": 0, "weight": 0.0, **_rates(model, encoded, decoder, Decoding(beam=beam))}
        )
        slow = decoder == TRANSDUCER and beam > 1
        for order, lm in lms.items():
            if decoder == TRANSDUCER and order != ORDERS[1]:
                continue
            weights = LM_WEIGHTS[::2] if slow else LM_WEIGHTS
            tried = {weight: Decoding(beam=beam, lm=lm, lm_weight=weight) for weight in weights}
            by_weight = {weight: _wer(model, encoded["choice"], decoder, each)[0] for weight, each in tried.items()}
            best = min(by_weight, key=lambda weight: by_weight[weight])
            rates = _rates(model, encoded, decoder, tried[best])
            results.append({"beam": beam, "order": order, "weight": best, "by_weight": by_weight, **rates})
    return results


def boost(model: Any, test: Encoded, decoder: str, lists: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Measure hotwords on the test set with each weight. Transducers are measured with greedy decoding only.

    Each list of ``lists`` is measured alone. The counts are the sums over all lists, and the word error rate is the
    mean.
    """
    results = []
    for beam in (1,) if decoder == TRANSDUCER else (1, BEAM):
        for weight in (0.0, *BOOST_WEIGHTS):
            counts, rates = [], []
            for words in lists:
                asked = Decoding(beam=beam, boost=tuple(words) if weight else (), boost_weight=weight)
                texts = measures.decode(model, test, decoder, asked).texts
                counts.append(measures.rare(texts, test.texts, words))
                rates.append(measures.word_error_rate(texts, test.texts))
            said, right, wrong = map(sum, zip(*counts))
            wer = round(mean(rates), 2)
            results.append({"beam": beam, "weight": weight, "wer": wer, "said": said, "right": right, "wrong": wrong})
    return results


def confidence(model: Any, encoded: dict[str, Encoded], decoder: str) -> list[dict[str, Any]]:
    """Measure how well each kind of confidence tells right words from wrong words."""
    results = []
    before = dict(CONFIDENCE)
    try:
        for name, method in METHODS.items():
            CONFIDENCE.update(method)
            row: dict[str, Any] = {"method": name}
            for part, each in encoded.items():
                scores = measures.judged(
                    model, measures.decode(model, each, decoder, Decoding(beam=1, confidence=True)), each.texts
                )
                row[part] = {
                    "auc": round(measures.area_under_roc(scores), 3),
                    "words": len(scores),
                    "right": sum(is_right for _, is_right in scores),
                }
            results.append(row)
    finally:
        CONFIDENCE.update(before)
    return results


def _rates(model: Any, encoded: dict[str, Encoded], decoder: str, asked: Decoding) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    for part, each in encoded.items():
        rates[part], seconds = _wer(model, each, decoder, asked)
        if part == "test":
            rates["ms_per_second"] = round(1e3 * seconds / each.seconds, 1)
    return rates


def _wer(model: Any, encoded: Encoded, decoder: str, asked: Decoding) -> tuple[float, float]:
    decoded = measures.decode(model, encoded, decoder, asked)
    return round(measures.word_error_rate(decoded.texts, encoded.texts), 2), decoded.seconds
