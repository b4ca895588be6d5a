"""Word error rates, rare words and confidence of a model with each decoding.

The encoder runs once. Its outputs are decoded with each setting by NeMo's decoders, which
``nemo_squeezeformer.transcription.decoding.strategy`` sets as the command `transcribe` does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nemo_squeezeformer.transcription.decoding import confidence
from nemo_squeezeformer.transcription.decoding.strategy import Decoding, decoding_of, set_decoding

BATCH = 16
GAP = "*"  # kaldialign writes this opposite an insertion or a deletion
RARE = 3  # a word is rare if the training transcripts have it at most this number of times
CTC, TRANSDUCER = "CTC", "transducer"


class Encoded(NamedTuple):
    """The outputs of the encoder for all rows of a manifest, batch by batch: ``(B, D, T)`` and the lengths ``(B,)``."""

    batches: list[tuple[Any, Any]]
    texts: list[str]
    seconds: float


class Decoded(NamedTuple):
    """The results of a decoding: NeMo's hypotheses, and the processor time in seconds."""

    hypotheses: list[Any]
    seconds: float

    @property
    def texts(self) -> list[str]:
        return [hypothesis.text for hypothesis in self.hypotheses]


def encode(model: Any, rows: Sequence[dict[str, Any]]) -> Encoded:
    import torch
    from nemo.collections.asr.parts.preprocessing.segment import AudioSegment

    batches = []
    with torch.inference_mode():
        for first in range(0, len(rows), BATCH):
            audio = [
                torch.from_numpy(AudioSegment.from_file(row["audio_filepath"], target_sr=16000).samples)
                for row in rows[first : first + BATCH]
            ]
            lengths = torch.tensor([len(samples) for samples in audio])
            padded = torch.nn.utils.rnn.pad_sequence(audio, batch_first=True)
            features, lengths = model.preprocessor(input_signal=padded, length=lengths)
            batches.append(model.encoder(audio_signal=features, length=lengths))
    return Encoded(batches, [row["text"] for row in rows], sum(row["duration"] for row in rows))


def decoders_of(model: Any) -> list[str]:
    """Return the decoders to measure: the transducer of a hybrid model, or CTC."""
    return [TRANSDUCER] if hasattr(model, "ctc_decoder") else [CTC]


def decode(model: Any, encoded: Encoded, decoder: str, asked: Decoding) -> Decoded:
    """Decode the outputs of the encoder with one of the decoders of the model.

    The strategy is set first, and the time to set the strategy is not counted.
    """
    import torch

    hybrid = hasattr(model, "ctc_decoder")
    chosen = {"decoder_type": "ctc" if decoder == CTC else "rnnt"} if hybrid else {}
    model.change_decoding_strategy({"strategy": "greedy_batch"}, **chosen, verbose=False)
    set_decoding(model, asked)
    linear = model.ctc_decoder if hybrid else model.decoder
    decoding = decoding_of(model)
    hypotheses = []
    began = time.process_time()
    with torch.inference_mode():
        for outputs, lengths in encoded.batches:
            if decoder == CTC:
                scores = linear(encoder_output=outputs)
                found = decoding.ctc_decoder_predictions_tensor(scores, lengths, return_hypotheses=True)
            else:
                found = decoding.rnnt_decoder_predictions_tensor(outputs, lengths, return_hypotheses=True)
            hypotheses += [each[0] if isinstance(each, list) else each for each in found]
    return Decoded(hypotheses, time.process_time() - began)


def word_error_rate(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return the word error rate in percent."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    return 100 * word_error_rate(list(texts), list(references))


def aligned(found: str, reference: str) -> Iterator[tuple[str, str]]:
    """Yield pairs of a word of the reference and a found word. ``GAP`` stands for a missing word."""
    from kaldialign import align

    yield from align(reference.split(), found.split(), GAP)


def rare_words(train: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return the words of ``texts`` that ``train`` has at most ``RARE`` times."""
    counts = Counter(word for text in train for word in text.split())
    return sorted({word for text in texts for word in text.split() if counts[word] <= RARE})


def rare(texts: Sequence[str], references: Sequence[str], words: Sequence[str]) -> tuple[int, int, int]:
    """Return the number of rare words in the references, of found rare words, and of wrong rare words in the texts."""
    wanted = set(words)
    pairs = [pair for text, reference in zip(texts, references) for pair in aligned(text, reference)]
    said = sum(reference in wanted for reference, _ in pairs)
    right = sum(reference in wanted and reference == found for reference, found in pairs)
    wrong = sum(found in wanted and reference != found for reference, found in pairs)
    return said, right, wrong


def judged(model: Any, decoded: Decoded, references: Sequence[str]) -> list[tuple[float, bool]]:
    """Return the confidence of each found word, and whether the word is right."""
    scores = []
    for hypothesis, reference in zip(decoded.hypotheses, references):
        words = confidence.words_of(model, hypothesis)
        pairs = aligned(" ".join(word["word"] for word in words), reference)
        right = [reference == found for reference, found in pairs if found != GAP]
        scores += [(word["confidence"], each) for word, each in zip(words, right)]
    return scores


def area_under_roc(scores: Sequence[tuple[float, bool]]) -> float:
    """Return the probability that a right word has a higher confidence than a wrong word. Equal numbers count half."""
    right = [score for score, is_right in scores if is_right]
    wrong = [score for score, is_right in scores if not is_right]
    wins = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
    return wins / (len(right) * len(wrong)) if right and wrong else float("nan")


def make_lm(model: Any, texts: Sequence[str], order: int, path: Path) -> str:
    """Write an n-gram model of the texts, as the command `lm` does, and return its path."""
    from nemo_squeezeformer.transcription.decoding import arpa, kneser_ney, token_ids

    ids = [token_ids.ids_of(model, text)[0] for text in texts]
    tokens = token_ids.vocabulary_size(model)
    arpa.write_arpa(kneser_ney.estimate(ids, tokens, order), tokens, path)
    return str(path)
