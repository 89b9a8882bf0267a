"""Optimizers: slots and an update for each, and clipping as a step of its own.

An optimizer is a function over the flat dict of parameters. It never learns what a layer is, and it remembers nothing: the slots
are arrays under the parameters' names that the caller keeps, saves and passes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from charlstm.nn.types import Array, Arrays

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.99, 1e-8
"""Decay of the mean and of the mean square, and the term that keeps the quotient finite. 0.99 rather than 0.999: runs are short."""

STRETCH = 1 << 15
"""An update goes over so many parameters at a time: its dozen sweeps then find them in the cache."""

RMSPROP_DECAY, RMSPROP_EPSILON = 0.95, 1e-8


def norm(arrays: Arrays) -> float:
    """Euclidean norm of all arrays taken as one vector; inf or nan where one of them is not finite."""
    return math.sqrt(sum(map(_square, arrays.values())))


def clip_global_norm(grads: Arrays, limit: float) -> float:
    """Scale all gradients **in place** so that their global norm is at most `limit` (Pascanu et al. 2013); 0 leaves them alone.

    Returns:
        the norm before clipping.
    """
    before = norm(grads)
    if 0 < limit < before < math.inf:
        for g in grads.values():
            g *= limit / before
    return before


def empty_slots(optimizer: str, params: Arrays) -> Arrays:
    """Zeroed slots ``<slot>/<parameter>`` for one of the names in `UPDATES`."""
    return {f"{slot}/{name}": np.zeros_like(p) for slot in SLOTS[optimizer] for name, p in params.items()}


def adam(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int) -> float:
    """Adam (Kingma & Ba 2015, alg. 1), **in place**; t counts updates from 1. Overwrites the gradients.

    Like every update here it returns the norm of the change.

    ::

        m = β1 m + (1 - β1) g            v = β2 v + (1 - β2) g²
        p = p - lr * m / (1 - β1^t) / (sqrt(v / (1 - β2^t)) + ε)
    """
    rate = lr / (1 - ADAM_BETA1**t)
    spread = 1 / math.sqrt(1 - ADAM_BETA2**t)
    squares = 0.0
    for p, g, m, v in _stretches(params, grads, _slot(slots, "m"), _slot(slots, "v")):
        scratch: Array = (1 - ADAM_BETA1) * g
        m *= ADAM_BETA1
        m += scratch
        g *= g
        g *= 1 - ADAM_BETA2
        v *= ADAM_BETA2
        v += g
        np.sqrt(v, out=scratch)
        scratch *= spread
        scratch += ADAM_EPSILON
        np.divide(m, scratch, out=scratch)
        scratch *= rate
        p -= scratch
        squares += _square(scratch)
    return math.sqrt(squares)


def rmsprop(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int) -> float:
    """RMSProp (Tieleman & Hinton 2012, lecture 6.5): p = p - lr * g / (sqrt(s) + ε), s a running mean of g². **In place**."""
    squares = 0.0
    for name, p in params.items():
        g, s = grads[name], slots[f"s/{name}"]
        s *= RMSPROP_DECAY
        s += (1 - RMSPROP_DECAY) * (g * g)
        change = lr * g / (np.sqrt(s) + RMSPROP_EPSILON)
        p -= change
        squares += _square(change)
    return math.sqrt(squares)


def sgd(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int) -> float:
    """Plain stochastic gradient descent: p = p - lr * g, **in place**."""
    for name, p in params.items():
        p -= lr * grads[name]
    return lr * norm(grads)


def _slot(slots: Arrays, slot: str) -> Arrays:
    """The arrays of one slot under the parameters' names."""
    return {name.removeprefix(f"{slot}/"): a for name, a in slots.items() if name.startswith(f"{slot}/")}


def _stretches(params: Arrays, *others: Arrays) -> Iterator[tuple[Array, ...]]:
    """Views of every parameter and of what the other dicts have under its name, a stretch at a time that the cache holds."""
    for name, p in params.items():
        flat = [a.reshape(-1) for a in (p, *(other[name] for other in others))]
        for start in range(0, p.size, STRETCH):
            yield tuple(a[start : start + STRETCH] for a in flat)


def _square(a: Array) -> float:
    flat = a.reshape(-1)
    return float(np.dot(flat, flat))


Update = Callable[[Arrays, Arrays, Arrays, float, int], float]

SLOTS: dict[str, tuple[str, ...]] = {"adam": ("m", "v"), "rmsprop": ("s",), "sgd": ()}
UPDATES: dict[str, Update] = {"adam": adam, "rmsprop": rmsprop, "sgd": sgd}
