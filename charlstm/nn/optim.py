"""Optimizers, each a set of slots and an update function, and gradient clipping as a separate step.

An optimizer is a function over the flat dict of parameters. It knows nothing of layers and keeps no state of its own: the slots are
arrays, named after the parameters, that the caller stores, saves and passes in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator

import numpy as np

from charlstm.nn.threads import ThreadPool, split
from charlstm.nn.types import Array, Arrays

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.99, 1e-8
"""Decay rates of the mean and the mean square, and the term that keeps the quotient finite. β2 is 0.99, not 0.999: runs are short."""

CHUNK = 1 << 15
"""How many parameters an update handles at a time: few enough to stay in the cache through its dozen operations."""

RMSPROP_DECAY, RMSPROP_EPSILON = 0.95, 1e-8

MUON_MOMENTUM = 0.95
MUON_ADAM_RATE = 2.0
"""Muon updates the other parameters by Adam, at this multiple of the learning rate."""
MUON_COEFFICIENTS = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448))
"""Coefficients of the polynomial of each iteration. These two map every singular value above a thousandth of the matrix's norm to
between 0.03 and 1.97, the best that two polynomials of degree 5 can do (Amsel et al. 2025). More iterations are more exact, but models
learn no better with them."""


def norm(arrays: Arrays) -> float:
    """Return the Euclidean norm of all arrays as one vector; inf or nan if any number is not finite."""
    return math.sqrt(sum(map(_square, arrays.values())))


def clip_global_norm(grads: Arrays, limit: float) -> float:
    """Scale all gradients **in place** so that their global norm is at most `limit` (Pascanu et al. 2013); 0 disables clipping.

    Returns:
        the norm before clipping.
    """
    before = norm(grads)
    if 0 < limit < before < math.inf:
        for g in grads.values():
            g *= limit / before
    return before


def slot_names(optimizer: str, params: Collection[str], hidden: Collection[str]) -> dict[str, str]:
    """Return the slots of an optimizer of `UPDATES`, ``<slot>/<parameter>``, each with the parameter whose shape it has.

    Muon has a momentum m for every parameter, and Adam's v for all but the `hidden` matrices.
    """
    return {
        f"{slot}/{name}": name
        for slot in SLOTS[optimizer]
        for name in params
        if not (optimizer == "muon" and slot == "v" and name in hidden)
    }


def empty_slots(optimizer: str, params: Arrays, hidden: Collection[str] = ()) -> Arrays:
    """Return zeroed slots; `hidden` names the matrices that Muon orthogonalises (`model.hidden_matrices`)."""
    return {slot: np.zeros_like(params[name]) for slot, name in slot_names(optimizer, params, hidden).items()}


def adam(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: ThreadPool | None = None) -> float:
    """Update the parameters by Adam (Kingma & Ba 2015, alg. 1), **in place**; overwrites the gradients.

    Every update function takes t, the number of this update, from 1, and a crew to share the work with, which only Muon uses. It
    returns the norm of the change.

    ::

        m = β1 m + (1 - β1) g            v = β2 v + (1 - β2) g²
        p = p - lr * m / (1 - β1^t) / (sqrt(v / (1 - β2^t)) + ε)
    """
    rate = lr / (1 - ADAM_BETA1**t)
    spread = 1 / math.sqrt(1 - ADAM_BETA2**t)
    squares = 0.0
    for p, g, m, v in _chunks(params, grads, _slot(slots, "m"), _slot(slots, "v")):
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


def muon(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: ThreadPool | None = None) -> float:
    """Update the hidden matrices by Muon and the rest by Adam (Jordan et al. 2024), **in place**; overwrites the gradients.

    The gradient of a recurrent matrix is nearly of low rank: it is large in a few directions, and Adam mostly follows those. Muon
    replaces it, gate by gate, with the nearest orthogonal matrix, which moves equally far in every direction, and far in none::

        m = μ m + (1 - μ) g
        p = p - lr * orthogonal(μ m + (1 - μ) g)

    The hidden matrices are those without a slot v.
    """
    hidden = [name for name in params if f"v/{name}" not in slots]
    rest = {name: p for name, p in params.items() if name not in hidden}
    squares = adam(rest, grads, slots, MUON_ADAM_RATE * lr, t) ** 2
    blocks = []
    for name in hidden:
        p, g, m = params[name], grads[name], slots[f"m/{name}"]
        m *= MUON_MOMENTUM
        g *= 1 - MUON_MOMENTUM
        m += g
        g += MUON_MOMENTUM * m
        blocks += list(zip(np.split(p, 4), np.split(g, 4), strict=True))  # views, one per gate
    pool = pool or ThreadPool(1)
    shares = split(len(blocks), max(1, min(pool.threads, len(blocks))))

    def job(k: int) -> list[float]:
        found = []
        for block, change in blocks[shares[k]]:
            step = orthogonal(change)
            step *= lr
            block -= step
            found.append(_square(step))
        return found

    if blocks:
        squares += sum(
            itertools.chain.from_iterable(pool.map(job, len(shares)))
        )  # in a fixed order, so that the rounding does not depend on the threads
    return math.sqrt(squares)


def orthogonal(G: Array) -> Array:
    """Approximate the orthogonal matrix nearest to G (M, N): the same singular vectors, with singular values near 1.

    Each iteration maps every singular value s to a s + b s³ + c s⁵, by matrix products alone: X = a X + (b A + c A²) X, A = X Xᵀ.
    """
    X: Array = G.T if G.shape[0] > G.shape[1] else G
    X = X / max(math.sqrt(_square(X)), 1e-30)
    for a, b, c in MUON_COEFFICIENTS:
        A = X @ X.T
        B = A @ A.T  # A is symmetric, and BLAS does half the work in a product with its own transpose
        B *= c
        A *= b
        B += A
        A = B @ X
        X *= a
        X += A
    return X.T if G.shape[0] > G.shape[1] else X


def rmsprop(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: ThreadPool | None = None) -> float:
    """Update by RMSProp (Tieleman & Hinton 2012, lecture 6.5), **in place**: p = p - lr * g / (sqrt(s) + ε), s a running mean of g²."""
    squares = 0.0
    for name, p in params.items():
        g, s = grads[name], slots[f"s/{name}"]
        s *= RMSPROP_DECAY
        s += (1 - RMSPROP_DECAY) * (g * g)
        change = lr * g / (np.sqrt(s) + RMSPROP_EPSILON)
        p -= change
        squares += _square(change)
    return math.sqrt(squares)


def sgd(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: ThreadPool | None = None) -> float:
    """Update by plain stochastic gradient descent, **in place**: p = p - lr * g."""
    for name, p in params.items():
        p -= lr * grads[name]
    return lr * norm(grads)


def _slot(slots: Arrays, slot: str) -> Arrays:
    """Return the arrays of one slot, by parameter."""
    return {name.removeprefix(f"{slot}/"): a for name, a in slots.items() if name.startswith(f"{slot}/")}


def _chunks(params: Arrays, *others: Arrays) -> Iterator[tuple[Array, ...]]:
    """Yield views of `CHUNK` numbers of each parameter, and of the arrays of the same name in the other dicts."""
    for name, p in params.items():
        flat = [a.reshape(-1) for a in (p, *(other[name] for other in others))]
        for start in range(0, p.size, CHUNK):
            yield tuple(a[start : start + CHUNK] for a in flat)


def _square(a: Array) -> float:
    flat = a.reshape(-1)
    return float(np.dot(flat, flat))


Update = Callable[[Arrays, Arrays, Arrays, float, int, ThreadPool | None], float]

SLOTS: dict[str, tuple[str, ...]] = {"muon": ("m", "v"), "adam": ("m", "v"), "rmsprop": ("s",), "sgd": ()}
UPDATES: dict[str, Update] = {"muon": muon, "adam": adam, "rmsprop": rmsprop, "sgd": sgd}
