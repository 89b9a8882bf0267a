"""How well counting does: n-gram models with interpolated Kneser-Ney smoothing, as a mark to hold a loss against.

P_n(c | context) = max(count(context c) - D_n, 0) / count(context) + D_n types(context) / count(context) * P_{n-1}(c | shorter context)

where below the highest order an n-gram's count is that of the different characters it was seen after, not that of its occurrences
(Kneser & Ney 1995; Chen & Goodman 1999, eq. 23), and D_n = n1 / (n1 + 2 n2) from the numbers of n-grams counted once and twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDERS = 6
"""n goes from 1 to this."""
TRAIN_CHARS, VAL_CHARS = 1 << 20, 1 << 18
"""While training so many characters are counted at most, those nearest to the held-out text, and so many of that are predicted: it
takes about a second."""

BYTES_PER_CHAR = 110
"""Most of what is held while counting, for each character counted."""

Ranks = NDArray[np.int64]
"""For each place in a text the rank of the n-gram that ends there among all n-grams counted; -1 for one that was not."""


@dataclass(frozen=True)
class Mark:
    """The best of the n-gram models on a text."""

    order: int
    nats: float
    all_nats: tuple[float, ...]  # of order 1, 2, …
    chars: int  # counted
    whole: bool  # whether that was the whole text


def best(train_ids: NDArray[Any], ids: NDArray[Any], V: int, limit: bool = True) -> Mark | None:
    """Count a text (chars,) and predict another, each character but the first few from those before it; None if that can't be done.

    Args:
        train_ids: the text to count.
        ids: the text to predict.
        V: size of the vocabulary.
        limit: count and predict no more than `TRAIN_CHARS` and `VAL_CHARS`.
    """
    counted = train_ids[-TRAIN_CHARS:] if limit else train_ids
    predicted = ids[:VAL_CHARS] if limit else ids
    if len(counted) < 2 * ORDERS or len(predicted) < 2:
        return None
    # The text before the held-out one is its context, so that its first characters are predicted as any others.
    lead = counted[-ORDERS:]
    nats = _kneser_ney(counted, np.concatenate([lead, predicted]), V)[:, len(lead) :]
    means = tuple(float(row.mean()) for row in nats)
    order = int(np.argmin(means))
    return Mark(order + 1, means[order], means, len(counted), len(counted) == len(train_ids))


def memory_bytes(train_chars: int) -> int:
    """What `best` takes while it works on a text of so many characters."""
    return BYTES_PER_CHAR * min(train_chars, TRAIN_CHARS)


def _kneser_ney(train: NDArray[Any], text: NDArray[Any], V: int) -> NDArray[np.float64]:
    """Surprise in nats of every character of a text: (ORDERS, chars), a row for each order."""
    surprise = np.empty((ORDERS, len(text)))
    lower = np.full(len(text), 1 / V)  # P of the order below: with continuation counts from order 1 on
    # Ranks of the contexts: at first all are the empty one.
    ours, theirs = np.zeros(len(train), np.int64), np.zeros(len(text), np.int64)
    places, counts, ranks, found = _count(train, text, ours, theirs, V)
    for n in range(1, ORDERS + 1):
        contexts = ours[places]
        surprise[n - 1] = -np.log(_smooth(counts, contexts, found, theirs, lower))
        if n == ORDERS:
            break
        # The n-grams that end one place further left are the contexts of the next order.
        next_ours, next_theirs = _shift(ranks), _shift(found)
        more = _count(train, text, next_ours, next_theirs, V)
        before = np.bincount(ranks[more[0]], minlength=len(counts))  # different characters that each n-gram follows
        lower = _smooth(np.maximum(before, 1), contexts, found, theirs, lower)
        ours, theirs = next_ours, next_theirs
        places, counts, ranks, found = more
    return surprise


def _count(
    train: NDArray[Any], text: NDArray[Any], ours: Ranks, theirs: Ranks, V: int
) -> tuple[Ranks, Ranks, Ranks, Ranks]:
    """The n-grams made of contexts and the characters after them.

    Returns:
        of all that the first text holds a place where each ends, and how often it occurs; the ranks in that text, and those in the other.
    """
    keys_at = ours * V + train
    known = np.flatnonzero(ours >= 0)
    keys, first, inverse, counts = np.unique(keys_at[known], return_index=True, return_inverse=True, return_counts=True)
    ranks = np.full(len(train), -1, np.int64)
    ranks[known] = inverse.reshape(-1)
    wanted = theirs * V + text
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.where((theirs >= 0) & (keys[at] == wanted), at, -1)
    return known[first], counts, ranks, found


def _shift(ranks: Ranks) -> Ranks:
    """The ranks one place later: what ended at a place is the context of the next."""
    shifted = np.empty_like(ranks)
    shifted[0], shifted[1:] = -1, ranks[:-1]
    return shifted


def _smooth(
    counts: Ranks, contexts: Ranks, found: Ranks, theirs: Ranks, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The formula above: counts and contexts of all n-grams (grams,), found n-grams and contexts of the text (chars,)."""
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    D = once / (once + 2 * twice) if once and twice else 0.5
    size = int(contexts.max()) + 1
    total = np.bincount(contexts, counts, size)
    types = np.bincount(contexts, minlength=size)
    seen = (theirs >= 0) & (theirs < size)
    seen[seen] &= total[theirs[seen]] > 0
    place = np.where(seen, theirs, 0)
    above = np.where(found >= 0, counts[np.maximum(found, 0)] - D, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.maximum(above, 0) / total[place] + D * types[place] / total[place] * lower
    return np.where(seen, p, lower)
