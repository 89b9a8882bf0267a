"""Softmax cross-entropy, which training minimises, and its exact gradient."""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids

SWEEP_NUMBERS = 1 << 18
"""How many logits become a gradient at a time: few enough to stay in the cache through all passes over them."""


def log_softmax(logits: Array) -> Array:
    """Return log p (V, M) of logits (V, M), column by column; subtracting each column's maximum prevents overflow (Bridle 1990)."""
    shifted: Array = logits - logits.max(axis=0)
    shifted -= np.log(np.exp(shifted).sum(axis=0))
    return shifted


def nll(logits: Array, targets: Ids) -> Array:
    """Return -log p[target] in nats, (M,), for logits (V, M) and targets (M,)."""
    return -log_softmax(logits)[targets, np.arange(targets.size)]


def softmax_cross_entropy(logits: Array, targets: Ids) -> tuple[float, Array]:
    """Compute the mean loss in nats per character, and its gradient with respect to the logits.

    d_logits = (p - onehot(target)) / M (Bishop 2006, eq. 4.109).

    Args:
        logits: (V, M); **overwritten** with the gradient.
        targets: (M,) ids.

    Returns:
        the loss, and the gradient (V, M), which shares the memory of the logits.
    """
    M, surprise = targets.size, 0.0
    block = max(1, SWEEP_NUMBERS // len(logits))  # columns
    for start in range(0, M, block):
        chunk, right_ones = logits[:, start : start + block], targets[start : start + block]
        columns = np.arange(right_ones.size)
        chunk -= chunk.max(axis=0)
        right = chunk[right_ones, columns]  # a copy: exp overwrites the logits
        np.exp(chunk, out=chunk)
        total = chunk.sum(axis=0)  # at least 1
        surprise += float(np.sum(np.log(total) - right))
        chunk *= (1 / M) / total
        chunk[right_ones, columns] -= 1 / M
    return surprise / M, logits
