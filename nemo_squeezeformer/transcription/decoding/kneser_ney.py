"""An n-gram model of tokens with interpolated modified Kneser-Ney smoothing.

Source: Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1999), section 4.

An n-gram has a number. Its key is the number of its first n - 1 tokens, times the size of the vocabulary, plus its last
token. All functions work with arrays over all n-grams of an order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

FALLBACK = (0.5, 1.0, 1.5)  # discounts if the text has too few n-grams to estimate them; KenLM has the same fallback


class Order(NamedTuple):
    """All n-grams of an order.

    Attributes:
        symbols: the tokens of the n-grams (G, n).
        probability: the probability of the last token after the first n - 1 tokens (G,).
        backoff: the weight of the next lower order after this n-gram (G,). It is 1 if no longer n-gram begins with
            this n-gram.
    """

    symbols: Any
    probability: Any
    backoff: Any


class _Grams(NamedTuple):
    """The n-grams of an order: their numbers, and where they occur.

    Attributes:
        at: the number of the n-gram that ends at each position of the text (T,), or -1 if a sentence begins within it.
        context: the number of the first n - 1 tokens of each n-gram (G,).
        last: the last token of each n-gram (G,).
        suffix: the number of the last n - 1 tokens of each n-gram (G,).
        counts: the number of occurrences of each n-gram (G,).
    """

    at: Any
    context: Any
    last: Any
    suffix: Any
    counts: Any


def estimate(sentences: Sequence[Sequence[int]], tokens: int, order: int) -> list[Order]:
    """Return the n-grams of the orders 1 to ``order``, or fewer orders if all sentences are shorter.

    Every token has a probability, also after a context that the text does not have. The start of a sentence is the
    token ``tokens``, and the end of a sentence is the token ``tokens + 1``.

    Args:
        sentences: lists of token ids from 0 to ``tokens - 1``.
        tokens: the size of the vocabulary.
        order: the length of the longest n-grams, 1 or more.
    """
    import numpy as np

    size = tokens + 2
    start, end = tokens, tokens + 1
    text = np.concatenate([np.asarray([start, *sentence, end], dtype=np.int64) for sentence in sentences])
    every = np.arange(size)
    grams = [_Grams(text, np.zeros_like(every), every, every, np.bincount(text, minlength=size))]
    while len(grams) < order and (longer := _longer(grams[-1], text, start, size)):
        grams.append(longer)

    orders: list[Order] = []
    for n, each in enumerate(grams, start=1):
        counts = each.counts
        if n < len(grams):  # a lower order counts the different tokens before an n-gram, and not the occurrences
            before = np.bincount(grams[n].suffix, minlength=len(counts))
            counts = np.where(before > 0, before, counts)  # nothing is before the start of a sentence
        if n == 1:
            counts = np.where(every == start, 0, counts)
            lower = np.where(every == start, 0.0, 1 / (size - 1))
            symbols = every[:, None]
        else:
            lower = orders[-1].probability[each.suffix]
            symbols = np.column_stack([orders[-1].symbols[each.context], each.last])
        probability, backoff = _interpolated(counts, each.context, lower)
        if n > 1:
            orders[-1].backoff[: len(backoff)] = backoff
        orders.append(Order(symbols, probability, np.ones(len(counts))))
    return orders


def _longer(grams: _Grams, text: Any, start: int, size: int) -> _Grams | None:
    """Return the n-grams that are one token longer, or None if no sentence is long enough."""
    import numpy as np

    at = np.full(len(text), -1)
    ends = 1 + np.flatnonzero((grams.at[:-1] >= 0) & (text[1:] != start))
    if not len(ends):
        return None
    keys, first, numbers, counts = np.unique(
        grams.at[ends - 1] * size + text[ends], return_index=True, return_inverse=True, return_counts=True
    )
    at[ends] = numbers
    return _Grams(at, keys // size, keys % size, grams.at[ends[first]], counts)


def _interpolated(counts: Any, context: Any, lower: Any) -> tuple[Any, Any]:
    """Return the probability of each n-gram (G,), and the weight of the lower order after each context (C,)."""
    import numpy as np

    discounts = np.array([0.0, *_discounts(counts)])[np.minimum(counts, 3)]
    totals = np.bincount(context, weights=counts)
    taken = np.bincount(context, weights=discounts)
    weight = np.divide(taken, totals, out=np.ones_like(totals), where=totals > 0)
    return (counts - discounts) / np.maximum(totals, 1)[context] + weight[context] * lower, weight


def _discounts(counts: Any) -> tuple[float, ...]:
    """Return the numbers to subtract from the counts 1, 2, and 3 or more (equation 26 of the source)."""
    import numpy as np

    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= discount <= count for count, discount in enumerate(found, start=1)) else FALLBACK
