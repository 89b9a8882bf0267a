"""N-gram baseline for a model's loss: interpolated Kneser-Ney smoothing.

P_n(c | context) = max(count(context c) - D_n, 0) / count(context)
                 + D_n types(context) / count(context) * P_{n-1}(c | shorter context)

Below the highest order, an n-gram's count is the number of distinct characters that it follows, not of its occurrences
(Kneser & Ney 1995; Chen & Goodman 1999, eq. 23). D_n = n1 / (n1 + 2 n2), where n1 and n2 are the numbers of n-grams
counted once and twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.text.ids import TextIds

ORDERS = 6
"""Highest n; the lower ones are tried too."""
TRAIN_CHARS, VAL_CHARS = 1 << 20, 1 << 18
"""Maximum number of characters counted (those nearest to the held-out text) and predicted during training.

This takes about a second."""

BYTES_PER_CHAR = 110
"""Peak memory in bytes per counted character."""

Ranks = NDArray[np.int64]
"""For each position in a text, the rank of the n-gram that ends there among all counted n-grams; -1 if not counted."""


@dataclass(frozen=True)
class NgramBaseline:
    """The best n-gram model on a text."""

    order: int
    nats: float  # per character, of the best order
    all_nats: tuple[float, ...]  # per character, of orders 1, 2, …
    chars: int  # counted
    whole: bool  # whether the whole text was counted


def best(train_ids: TextIds, ids: TextIds, V: int, limit: bool = True) -> NgramBaseline | None:
    """Count n-grams in one text and predict another; return the best order, or None if a text is too short.

    Args:
        train_ids: text to count, (chars,).
        ids: text to predict, (chars,).
        V: vocabulary size.
        limit: count and predict at most `TRAIN_CHARS` and `VAL_CHARS`.
    """
    counted = np.asarray(train_ids[-TRAIN_CHARS:] if limit else train_ids)
    predicted = np.asarray(ids[:VAL_CHARS] if limit else ids)
    if len(counted) < 2 * ORDERS or len(predicted) < 2:
        return None
    # The counted text ends where the other begins, so its end is the context of the first characters there.
    lead = counted[-ORDERS:]
    nats = _kneser_ney(counted, np.concatenate([lead, predicted]), V)[:, len(lead) :]
    means = tuple(float(row.mean()) for row in nats)
    order = int(np.argmin(means))
    return NgramBaseline(order + 1, means[order], means, len(counted), len(counted) == len(train_ids))


def memory_bytes(train_chars: int) -> int:
    """Return the peak memory of `best` in bytes, for a training text of this many characters."""
    return BYTES_PER_CHAR * min(train_chars, TRAIN_CHARS)


def _kneser_ney(train: NDArray[Any], text: NDArray[Any], V: int) -> NDArray[np.float64]:
    """Return the negative log-likelihood of every character in nats, (ORDERS, chars)."""
    surprise = np.empty((ORDERS, len(text)))
    lower = np.full(len(text), 1 / V)  # P of the order below, with continuation counts from order 1 on
    # Ranks of the contexts; at order 1 every context is empty.
    ours, theirs = np.zeros(len(train), np.int64), np.zeros(len(text), np.int64)
    places, counts, ranks, matches = _count(train, text, ours, theirs, V)
    for n in range(1, ORDERS + 1):
        contexts = ours[places]
        surprise[n - 1] = -np.log(_smooth(counts, contexts, matches, theirs, lower))
        if n == ORDERS:
            break
        # In the next order, the n-gram that ends before a character is its context.
        next_ours, next_theirs = _shift(ranks), _shift(matches)
        longer = _count(train, text, next_ours, next_theirs, V)
        before = np.bincount(ranks[longer[0]], minlength=len(counts))  # distinct characters that each n-gram follows
        lower = _smooth(np.maximum(before, 1), contexts, matches, theirs, lower)
        ours, theirs = next_ours, next_theirs
        places, counts, ranks, matches = longer
    return surprise


def _count(
    train: NDArray[Any], text: NDArray[Any], ours: Ranks, theirs: Ranks, V: int
) -> tuple[Ranks, Ranks, Ranks, Ranks]:
    """Count the n-grams that consist of a context and the character after it.

    Returns:
        for each distinct n-gram in `train`, a position where it ends, and its count; the rank of the n-gram at each
        position of `train`; and the same for `text`.
    """
    keys_at = ours * V + train
    known = np.flatnonzero(ours >= 0)
    keys, first, inverse, counts = np.unique(keys_at[known], return_index=True, return_inverse=True, return_counts=True)
    ranks = np.full(len(train), -1, np.int64)
    ranks[known] = inverse.reshape(-1)
    wanted = theirs * V + text
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    matches = np.where((theirs >= 0) & (keys[at] == wanted), at, -1)
    return known[first], counts, ranks, matches


def _shift(ranks: Ranks) -> Ranks:
    """Shift ranks by one position: the n-gram that ends at a position is the context of the next character."""
    shifted = np.empty_like(ranks)
    shifted[0], shifted[1:] = -1, ranks[:-1]
    return shifted


def _smooth(
    counts: Ranks, contexts: Ranks, matches: Ranks, theirs: Ranks, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Apply the formula above to `counts` and `contexts` of all n-grams, (grams,), and ranks in the text, (chars,)."""
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    D = once / (once + 2 * twice) if once and twice else 0.5
    size = int(contexts.max()) + 1
    total = np.bincount(contexts, counts, size)
    types = np.bincount(contexts, minlength=size)
    seen = (theirs >= 0) & (theirs < size)
    seen[seen] &= total[theirs[seen]] > 0
    place = np.where(seen, theirs, 0)
    above = np.where(matches >= 0, counts[np.maximum(matches, 0)] - D, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.maximum(above, 0) / total[place] + D * types[place] / total[place] * lower
    return np.where(seen, p, lower)
