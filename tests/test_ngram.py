"""Counting: the smoothed probabilities are probabilities, the formula is Kneser and Ney's, and the mark is a fair one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from charlstm.inference import ngram


def text(chars: int, V: int, seed: int = 0) -> np.ndarray:
    """A text in which characters depend on the two before them."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(V, 0.2), (V, V))
    ids = [0, 1]
    for _ in range(chars - 2):
        ids.append(int(rng.choice(V, p=table[ids[-2], ids[-1]])))
    return np.array(ids, np.uint8)


def test_after_every_context_the_probabilities_add_up_to_one() -> None:
    V, train = 5, text(300, 5)
    total = np.zeros((ngram.ORDERS, 40))
    context = text(40, V, seed=3)
    for last in range(V):
        # The character in question stands at the end of each of forty texts.
        for k in range(1, 40):
            ended = np.append(context[:k], np.uint8(last))
            total[:, k] += np.exp(-ngram._kneser_ney(train, ended, V)[:, -1])
    np.testing.assert_allclose(total[:, 7:], 1, rtol=1e-12)


def test_a_bigram_model_is_the_formula() -> None:
    train, V = [0, 1, 0, 2, 0, 1, 1, 3, 0, 1, 2, 2, 0, 0, 3, 1], 4
    pairs, singles = Counter(pairwise(train)), Counter(train[:-1])
    left: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        left[b].add(a)

    def discount(counts: list[int]) -> float:
        return counts.count(1) / (counts.count(1) + 2 * counts.count(2))

    continuations = [len(left[c]) for c in range(V)]
    D1, D2 = discount(continuations), discount(list(pairs.values()))

    def p(a: int, b: int) -> float:
        unigram = (continuations[b] - D1) / sum(continuations) + D1 * V / sum(continuations) / V
        types = sum(1 for pair in pairs if pair[0] == a)
        return max(pairs[a, b] - D2, 0) / singles[a] + D2 * types / singles[a] * unigram

    ids = np.array([0, 1, 3, 2, 0], np.uint8)
    found = ngram._kneser_ney(np.array(train, np.uint8), ids, V)[1]
    np.testing.assert_allclose(found[1:], [-math.log(p(int(a), int(b))) for a, b in pairwise(ids)], rtol=1e-12)


def test_the_order_of_the_text_is_found() -> None:
    whole = text(30_000, 8)
    mark = ngram.best(whole[:-2000], whole[-2000:], 8)
    assert mark is not None
    assert mark.whole
    assert mark.order == 3
    assert mark.nats < mark.all_nats[1] < mark.all_nats[0] <= math.log(8)


def test_characters_that_were_never_counted_cost_a_finite_surprise() -> None:
    mark = ngram.best(np.zeros(50, np.uint8), np.array([0, 1, 2, 1, 0], np.uint8), 3)
    assert mark is not None
    assert math.isfinite(mark.nats)


@pytest.mark.parametrize(("train", "held_out"), [(0, 10), (5, 10), (100, 0), (100, 1)])
def test_too_little_text_has_no_mark(train: int, held_out: int) -> None:
    assert ngram.best(np.zeros(train, np.uint8), np.zeros(held_out, np.uint8), 1) is None


def test_a_long_text_is_counted_near_its_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "TRAIN_CHARS", 1000)
    train = text(5000, 6)
    mark, same = (ngram.best(t, train[-200:], 6) for t in (train, train[-1000:]))
    assert mark is not None
    assert same is not None
    assert (mark.nats, mark.chars, mark.whole) == (same.nats, 1000, False)
