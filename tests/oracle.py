"""The plain form: gate by gate, step by step, nothing fused, one stream at a time. Slow, and easy to believe."""

from __future__ import annotations

import math

import numpy as np

from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Array, Arrays, Ids


def sigmoid(z: Array) -> Array:
    return np.array([1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in z])


def layer(params: Arrays, x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
    """x (T, D), h (H,), c (H,) -> y (T, H), h, c."""
    H = len(h)
    gate = {name: slice(k * H, (k + 1) * H) for k, name in enumerate("ifog")}

    def pre(name: str, t: int) -> Array:
        rows = gate[name]
        m = 2 * sigmoid(params["M"] @ x[t]) * h if "M" in params else h
        return params["W"][rows] @ x[t] + params["U"][rows] @ m + params["b"][rows]

    y = []
    for t in range(len(x)):
        i, f, o = sigmoid(pre("i", t)), sigmoid(pre("f", t)), sigmoid(pre("o", t))
        g = np.tanh(pre("g", t))
        c = f * c + i * g
        h = o * np.tanh(c)
        y.append(h)
    return np.stack(y), h, c


def logits(params: Arrays, config: ModelConfig, ids: Ids, h: Array, c: Array) -> Array:
    """Logits (V, T, N) of ids (T, N) from state h, c (L, N, H)."""
    T, N = ids.shape
    result = np.empty((config.vocabulary, T, N))
    for n in range(N):
        x = params["embed.E"][ids[:, n]] if config.embedding else np.eye(config.vocabulary)[ids[:, n]]
        for k in range(config.layers):
            part = {key: params[f"layer{k + 1}.{key}"] for key in "WUbM" if f"layer{k + 1}.{key}" in params}
            y, _, _ = layer(part, x, h[k, n], c[k, n])
            x = x + y if config.residual and k else y
        for t in range(T):
            top = params["embed.E"] @ params["out.P"] if config.embedding else params["out.W"]
            result[:, t, n] = top @ x[t] + params["out.b"]
    return result


def loss(logits: Array, targets: Ids) -> float:
    """Mean nats a character, in Python floats: logits (V, T, N), targets (T, N)."""
    total = 0.0
    for t, n in np.ndindex(targets.shape):
        column = [float(v) for v in logits[:, t, n]]
        highest = max(column)
        total += highest + math.log(math.fsum(math.exp(v - highest) for v in column)) - column[targets[t, n]]
    return total / targets.size
