"""Softmax cross-entropy: the number that training minimises, and its exact gradient."""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids

SWEEP_NUMBERS = 1 << 18
"""So many logits are turned into a gradient at a time."""


def log_softmax(logits: Array) -> Array:
    """log p from logits, both (V, M), by columns; shifted by each column's maximum, so nothing overflows (Bridle 1990)."""
    shifted: Array = logits - logits.max(axis=0)
    shifted -= np.log(np.exp(shifted).sum(axis=0))
    return shifted


def nats(logits: Array, targets: Ids) -> Array:
    """Surprise of each target, -log p[target], in nats: (M,) from logits (V, M) and targets (M,)."""
    return -log_softmax(logits)[targets, np.arange(targets.size)]


def softmax_cross_entropy(logits: Array, targets: Ids) -> tuple[float, Array]:
    """Mean loss in nats a character, and its derivative in the logits.

    d loss / d logits = (p - onehot(target)) / M (Bishop 2006, eq. 4.109).

    Args:
        logits: (V, M); **overwritten** with the gradient.
        targets: (M,) ids.

    Returns:
        the loss, and the gradient (V, M) in the logits' own memory.
    """
    M, surprise = targets.size, 0.0
    few = max(1, SWEEP_NUMBERS // len(logits))  # columns at a time, so that the cache holds them from sweep to sweep
    for start in range(0, M, few):
        part, right_ones = logits[:, start : start + few], targets[start : start + few]
        columns = np.arange(right_ones.size)
        part -= part.max(axis=0)
        right = part[right_ones, columns]  # before the logits become probabilities
        np.exp(part, out=part)
        total = part.sum(axis=0)  # at least 1
        surprise += float(np.sum(np.log(total) - right))
        part *= (1 / M) / total
        part[right_ones, columns] -= 1 / M
    return surprise / M, logits
