"""The n-gram model of tokens: its probabilities equal the published equations, and NeMo reads them."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from nemo.collections.asr.parts.submodules.ngram_lm import NGramGPULanguageModel

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.decoding import ngram_file
from nemo_squeezeformer.transcription.decoding.arpa import read_tokens, write_arpa
from nemo_squeezeformer.transcription.decoding.kneser_ney import FALLBACK, estimate

TOKENS = 7
ORDER = 3


@pytest.fixture(scope="module")
def sentences() -> list[list[int]]:
    """Sentences in which token 6 never occurs."""
    rng = np.random.default_rng(0)
    return [(rng.geometric(0.4, rng.integers(1, 9)).clip(max=6) - 1).tolist() for _ in range(40)]


class Equations:
    """Interpolated modified Kneser-Ney smoothing, as Chen and Goodman write it, without any shared code."""

    def __init__(self, sentences: list[list[int]]) -> None:
        self.grams: list[Counter[tuple]] = []
        texts = [("<s>", *sentence, "</s>") for sentence in sentences]
        for n in range(1, ORDER + 1):
            occurrences = Counter(text[i : i + n] for text in texts for i in range(len(text) - n + 1))
            if n < ORDER:
                longer = {text[i : i + n + 1] for text in texts for i in range(len(text) - n)}
                before = Counter(gram[1:] for gram in longer)
                occurrences = Counter({g: c if g[0] == "<s>" else before[g] for g, c in occurrences.items()})
            occurrences.pop(("<s>",), None)
            self.grams.append(occurrences)

    def discounts(self, n: int) -> list[Fraction]:
        found = Counter(self.grams[n - 1].values())
        n1, n2, n3, n4 = (Fraction(found[count]) for count in (1, 2, 3, 4))
        if not (n1 and n2 and n3):
            return [Fraction(d) for d in FALLBACK]
        y = n1 / (n1 + 2 * n2)
        values = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return values if all(0 <= d <= i for i, d in enumerate(values, 1)) else [Fraction(d) for d in FALLBACK]

    def probability(self, word: object, context: tuple) -> Fraction:
        n = len(context) + 1
        lower = self.probability(word, context[1:]) if context else Fraction(1, TOKENS + 1)
        after = {gram: count for gram, count in self.grams[n - 1].items() if gram[:-1] == context}
        if not after:
            return lower
        discount = self.discounts(n)
        total = sum(after.values())
        taken = sum(discount[min(count, 3) - 1] for count in after.values())
        count = after.get((*context, word), 0)
        kept = count - discount[min(count, 3) - 1] if count else Fraction(0)
        return kept / total + Fraction(taken, 1) / total * lower


def test_the_probabilities_equal_the_published_equations(sentences):
    exact = Equations(sentences)
    names = {**{token: token for token in range(TOKENS)}, TOKENS: "<s>", TOKENS + 1: "</s>"}
    orders = estimate(sentences, TOKENS, ORDER)
    assert [len(order.symbols) for order in orders][0] == TOKENS + 2 and len(orders) == ORDER
    assert any(exact.discounts(n) != [Fraction(d) for d in FALLBACK] for n in range(1, ORDER + 1))
    for order in orders:
        for symbols, probability in zip(order.symbols.tolist(), order.probability.tolist()):
            *context, word = (names[symbol] for symbol in symbols)
            if word != "<s>":
                assert probability == pytest.approx(float(exact.probability(word, tuple(context))), rel=1e-9)


def test_nemo_reads_the_file_and_all_probabilities_sum_to_one(sentences, tmp_path):
    exact = Equations(sentences)
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(sentences, TOKENS, ORDER), TOKENS, path)
    assert read_tokens(path, "lm.arpa") == (TOKENS - 1, True)
    model = NGramGPULanguageModel.from_file(path, vocab_size=TOKENS).requires_grad_(False)
    for sentence in [sentences[0], [6, 6, 0, 6]]:  # the second has a token that the text does not have
        states, context = model.get_init_states(1, bos=True), ("<s>",)
        for token in sentence:
            scores, following = model.advance(states)
            total = scores.exp().sum() + model.get_final(states).exp()
            assert float(total) == pytest.approx(1.0, abs=1e-4)
            expected = math.log(exact.probability(token, context[-ORDER + 1 :]))
            assert float(scores[0, token]) == pytest.approx(expected, abs=1e-4)
            states, context = following[:, token], (*context, token)


def test_short_sentences_give_fewer_orders(tmp_path):
    orders = estimate([[0], [1], [0]], 3, 6)
    assert [order.symbols.shape[1] for order in orders] == [1, 2, 3]
    write_arpa(orders, 3, tmp_path / "lm.arpa")
    NGramGPULanguageModel.from_file(tmp_path / "lm.arpa", vocab_size=3)


def test_every_token_number_survives_the_file(tmp_path):
    """Among the characters of an ARPA file are spaces of Unicode, which must not separate the tokens."""
    tokens = 9000
    write_arpa(estimate([list(range(tokens))], tokens, 2), tokens, tmp_path / "lm.arpa")
    assert read_tokens(tmp_path / "lm.arpa", "lm.arpa") == (tokens - 1, True)
    model = NGramGPULanguageModel.from_file(tmp_path / "lm.arpa", vocab_size=tokens)
    states = model.get_init_states(1, bos=True)
    for token in range(tokens // 2, tokens // 2 + 3):
        states = model.advance(states)[1][:, token]
    assert int(model.advance(states)[0].argmax()) == tokens // 2 + 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("hello\n", "neither an ARPA file nor"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\n\n\\end\\\n", "has no 2-grams"),
        ("\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1\thello\t-1\n", "'hello', so its n-grams consist of words"),
        (b"\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1\t\xff\n", "cannot be read"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "lm.arpa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as refused:
        read_tokens(path, f"--lm {path}")
    assert "\n" not in str(refused.value) and "nemo-squeezeformer lm" in str(refused.value)


@pytest.mark.parametrize("symbols", ["<unk> d e", "d f"])
def test_files_of_other_programs_need_not_have_every_token(symbols, tmp_path):
    lines = "".join(f"-1\t{symbol}\t0\n" for symbol in ["<s>", "</s>", *symbols.split()])
    (tmp_path / "lm.arpa").write_text(f"\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n{lines}\n")
    assert read_tokens(tmp_path / "lm.arpa", "lm.arpa") == (ord(symbols[-1]) - 100, False)
    ngram_file.check(str(tmp_path / "lm.arpa"), 9)
