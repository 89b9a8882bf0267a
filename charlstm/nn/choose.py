"""From logits to the next character: temperature, top-k, top-p, and a draw."""

from __future__ import annotations

import numpy as np

from charlstm.nn.types import Array, Ids


def probabilities(logits: Array, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Array:
    """The distribution that a character is drawn from, in float64.

    Args:
        logits: (V, N).
        temperature: logits are divided by it; 0 puts everything on the largest one (the first of equals).
        top_k: keep exactly the k likeliest (of equals the first); 0 keeps all.
        top_p: keep the likeliest that together reach this probability (Holtzman et al. 2020), at least one; 1 keeps all.

    Returns:
        (V, N), columns that sum to 1.
    """
    V, N = logits.shape
    columns = np.arange(N)
    p: Array
    if temperature == 0:
        p = np.zeros((V, N))
        p[logits.argmax(axis=0), columns] = 1
        return p
    p = np.exp(
        np.maximum((logits.astype(np.float64) - logits.max(axis=0)) / temperature, -700.0)
    )  # exp(-700) is still normal
    p /= p.sum(axis=0)
    if 0 < top_k < V or top_p < 1:
        order = np.argsort(-p, axis=0, kind="stable")
        ranked = np.take_along_axis(p, order, axis=0)
        if 0 < top_k < V:
            ranked[top_k:] = 0
            ranked /= ranked.sum(axis=0)
        if top_p < 1:
            before = np.cumsum(ranked, axis=0) - ranked
            ranked[(before >= top_p) & (np.arange(V)[:, None] > 0)] = 0
            ranked /= ranked.sum(axis=0)
        np.put_along_axis(p, order, ranked, axis=0)
    return p


def draw(p: Array, uniform: Array) -> Ids:
    """One id a column from distributions p (V, N), by inversion with uniform numbers (N,) in [0, 1)."""
    cumulative = np.cumsum(p, axis=0)
    ids: Ids = (cumulative > uniform * cumulative[-1]).argmax(axis=0)
    return ids
