"""From logits to the next character: temperature, top-k, top-p, and a draw by the Gumbel-max trick.

The largest of log p + G, with G independent standard Gumbel noise, is distributed as p (Gumbel 1954): so a draw needs neither
probabilities nor their sum, and shifting or scaling the logits can't overflow.
"""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids

COLDEST = 1e-30
"""Temperatures below this are taken for it, which leaves no choice to chance either, and can't overflow."""


def draw(logits: Array, noise: Array, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Ids:
    """One id a column.

    Args:
        logits: (V, N).
        noise: (V, N) standard Gumbel numbers, in float64.
        temperature: logits are divided by it; 0 takes the largest one (the first of equals).
        top_k: choose among exactly the k likeliest (of equals the first); 0 among all.
        top_p: choose among the likeliest that together reach this probability (Holtzman et al. 2020), at least one; 1 among all.

    Returns:
        (N,) ids.
    """
    ids: Ids
    if temperature == 0:
        ids = logits.argmax(axis=0)
        return ids
    scores = logits / np.float64(max(temperature, COLDEST))
    if 0 < top_k < len(scores) or top_p < 1:
        drop_unlikely(scores, top_k, top_p)
    scores += noise
    ids = scores.argmax(axis=0)
    return ids


def drop_unlikely(scores: Array, top_k: int, top_p: float) -> None:
    """Set all scores (V, N) that top-k and then top-p leave out to -inf, **in place**."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    if 0 < top_k < len(ranked):
        ranked[top_k:] = -np.inf
    if top_p < 1:
        p = np.exp(np.maximum(ranked - ranked[0], -700.0)) * np.isfinite(ranked)  # exp(-700) is still a normal number
        p /= p.sum(axis=0)
        before = np.cumsum(p, axis=0) - p
        before[0] = 0
        ranked[before >= top_p] = -np.inf
    np.put_along_axis(scores, order, ranked, axis=0)
