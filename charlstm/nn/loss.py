"""Softmax cross-entropy: the number that training minimises, and its exact gradient."""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids


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
    columns = np.arange(targets.size)
    logits -= logits.max(axis=0)
    right = logits[targets, columns]  # (M,), before the logits become probabilities
    np.exp(logits, out=logits)
    total = logits.sum(axis=0)  # (M,), at least 1
    loss = float(np.mean(np.log(total) - right))
    logits *= (1 / targets.size) / total
    logits[targets, columns] -= 1 / targets.size
    return loss, logits
