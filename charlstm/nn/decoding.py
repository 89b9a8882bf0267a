"""Decoding, from logits to the next character: temperature, top-k, top-p, and sampling by the Gumbel-max trick.

The argmax of log p + G, where G is independent standard Gumbel noise, has the distribution p (Gumbel 1954). Sampling therefore
needs neither probabilities nor their sum, and cannot overflow.
"""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids

COLDEST = 1e-30
"""Lower temperatures, other than 0, are raised to this: it is cold enough to be greedy, and dividing by it cannot overflow."""


def sample(logits: Array, noise: Array, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Ids:
    """Sample one id from each column of logits.

    Args:
        logits: (V, N).
        noise: (V, N) standard Gumbel noise, float64.
        temperature: divides the logits; 0 returns the argmax, the first one of equals.
        top_k: keep exactly the k most likely ids, the first ones of equals; 0 keeps all.
        top_p: keep the fewest most likely ids whose probabilities reach this sum (Holtzman et al. 2020), at least one; 1 keeps all.

    Returns:
        (N,) ids.
    """
    ids: Ids
    if temperature == 0:
        ids = logits.argmax(axis=0)
        return ids
    scores = logits / np.float64(max(temperature, COLDEST))
    if 0 < top_k < len(scores) or top_p < 1:
        filter_logits(scores, top_k, top_p)
    scores += noise
    ids = scores.argmax(axis=0)
    return ids


def filter_logits(scores: Array, top_k: int, top_p: float) -> None:
    """Apply top-k, then top-p, to scores (V, N): set all others to -inf, **in place**."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    if 0 < top_k < len(ranked):
        ranked[top_k:] = -np.inf
    if top_p < 1:
        p = np.exp(np.maximum(ranked - ranked[0], -700.0)) * np.isfinite(ranked)  # exp(-700) does not underflow
        p /= p.sum(axis=0)
        before = np.cumsum(p, axis=0) - p
        before[0] = 0
        ranked[before >= top_p] = -np.inf
    np.put_along_axis(scores, order, ranked, axis=0)
