"""Optimizers, each a set of slots and an update function, and gradient clipping as a separate step.

An optimizer is a function over the flat dict of parameters. It knows nothing of layers and keeps no state of its own: the slots are
arrays, named after the parameters, that the caller stores, saves and passes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np

from charlstm.nn.threads import Pool, ThreadPool
from charlstm.nn.types import Array, Arrays

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.99, 1e-8
"""Decay rates of the mean and the mean square, and the term that keeps the quotient finite. β2 is 0.99, not 0.999: runs are short."""

CHUNK = 1 << 15
"""How many parameters an update handles at a time: few enough to stay in the cache through its dozen operations."""

RMSPROP_DECAY, RMSPROP_EPSILON = 0.95, 1e-8

MUON_MOMENTUM = 0.95
MUON_ADAM_RATE = 2.0
"""Muon updates the other parameters by Adam, at this multiple of the learning rate."""
OUTPUTS, OUTPUT_CELLS = ("out.W", "out.P"), 192
"""The output's matrix has that rate for up to `OUTPUT_CELLS` cells, and for more of them a rate in inverse proportion to their number:
a logit sums over all cells, and Adam changes every weight by about as much (Yang et al. 2022)."""
MUON_ROWS = 64
"""Maximum number of rows that Muon makes orthogonal to each other. Against whole gates this is five to eight times as fast at 256 and
512 units, and models learn a little more per step."""
MUON_COEFFICIENTS = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448))
"""Coefficients of the polynomial of each iteration. These two map every singular value above a thousandth of the matrix's norm to
between 0.03 and 1.97, the best that two polynomials of degree 5 can do (Amsel et al. 2025). More iterations are more exact, but models
learn no better with them."""

AVERAGING_POWER = 7
"""The running average of the weights counts those after step t in proportion to t to this power: about the last eighth of a run."""


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


def adam(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: Pool | None = None) -> float:
    """Update the parameters by Adam (Kingma & Ba 2015, alg. 1), **in place**; overwrites the gradients.

    Every update function takes t, the number of this update, from 1, and a pool of threads to share the work with, which only Muon uses.
    It returns the norm of the change.

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


def muon(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: Pool | None = None) -> float:
    """Update the hidden matrices by Muon and the rest by Adam (Jordan et al. 2024), **in place**; overwrites the gradients.

    The gradient of a recurrent matrix is nearly of low rank: it is large in a few directions, and Adam mostly follows those. Muon
    replaces it with a matrix whose rows are orthogonal, which moves equally far in every direction, and far in none::

        m = μ m + (1 - μ) g
        p = p - lr * orthogonal(μ m + (1 - μ) g)

    It does so for blocks of at most `MUON_ROWS` rows of a gate. The hidden matrices are those without a slot v.
    """
    hidden = [name for name in params if f"v/{name}" not in slots]
    outputs = {name: p for name, p in params.items() if name in OUTPUTS}
    rest = {name: p for name, p in params.items() if name not in (*hidden, *outputs)}
    stacks = [
        stack
        for name in hidden
        for stack in zip(*(_row_blocks(a) for a in (params[name], grads[name], slots[f"m/{name}"])), strict=True)
    ]

    def update(k: int) -> float:
        if k == 0:
            rate = MUON_ADAM_RATE * lr
            moved = adam(rest, grads, slots, rate, t) ** 2
            for name, p in outputs.items():
                moved += adam({name: p}, grads, slots, rate * min(1.0, OUTPUT_CELLS / p.shape[1]), t) ** 2
            return moved
        p, g, m = stacks[k - 1]
        m *= MUON_MOMENTUM
        g *= 1 - MUON_MOMENTUM
        m += g
        g += MUON_MOMENTUM * m
        change = orthogonal(g)
        change *= lr
        p -= change
        return _square(change)

    squares = (pool or ThreadPool(1)).share(update, 1 + len(stacks))
    return math.sqrt(sum(squares))  # in a fixed order, so that the rounding does not depend on who computed what


def orthogonal(G: Array) -> Array:
    """Approximate the orthogonal matrix nearest to each matrix of a stack (…, M, N): the same singular vectors, with values near 1.

    Each iteration maps every singular value s to a s + b s³ + c s⁵, by matrix products alone: X = (a + b A + c A²) X, A = X Xᵀ.
    """
    tall = G.shape[-2] > G.shape[-1]
    X = G.swapaxes(-1, -2) if tall else G
    norms = np.sqrt(np.einsum("...ij,...ij->...", X, X))
    X = X / np.maximum(norms, 1e-30)[..., None, None]
    rows = X.shape[-2]
    for a, b, c in MUON_COEFFICIENTS:
        A = X @ X.swapaxes(-1, -2)
        B = A @ A
        B *= c
        A *= b
        B += A
        B.reshape(*B.shape[:-2], rows * rows)[..., :: rows + 1] += a
        X = B @ X
    result: Array = X.swapaxes(-1, -2) if tall else X
    return result


def _row_blocks(a: Array) -> list[Array]:
    """View the gates of a (4H, K), each cut into blocks of at most `MUON_ROWS` rows, as stacks of blocks (n, rows, K)."""
    stacks = []
    for gate in np.split(a, 4):
        H, K = gate.shape
        count = math.ceil(H / MUON_ROWS)
        rows, larger = divmod(H, count)  # this many blocks have a row more
        edge = larger * (rows + 1)
        stacks += [gate[:edge].reshape(larger, rows + 1, K)] if larger else []
        stacks += [gate[edge:].reshape(count - larger, rows, K)]
    return stacks


def rmsprop(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: Pool | None = None) -> float:
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


def sgd(params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: Pool | None = None) -> float:
    """Update by plain stochastic gradient descent, **in place**: p = p - lr * g."""
    for name, p in params.items():
        p -= lr * grads[name]
    return lr * norm(grads)


def average(averages: Arrays, params: Arrays, t: int, start: Arrays | None = None, start_share: float = 0.0) -> None:
    """Take the parameters after step t into their running averages, **in place** (polynomial decay; Shamir & Zhang 2013).

    a = a + (k + 1) / (k + t) * (p - a) with k = `AVERAGING_POWER`. The first step's parameters replace what was there.

    With pretrained weights s at the `start`, (1 - w) p + w s takes the place of p, where w is `start_share` (Wortsman et al. 2022).
    """
    share = (AVERAGING_POWER + 1) / (AVERAGING_POWER + t)
    if not start:
        for a, p in _chunks(averages, params):
            a += share * (p - a)
        return
    for a, p, s in _chunks(averages, params, start):
        a += share * (p + start_share * (s - p) - a)


def with_start_share(averages: Arrays, start: Arrays, old: float, new: float) -> Arrays:
    """Return averages that have another share of the weights at the start: see `average`."""
    return {name: a + (new - old) / (1 - old) * (start[name] - a) for name, a in averages.items()}


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


Update = Callable[[Arrays, Arrays, Arrays, float, int, Pool | None], float]

SLOTS: dict[str, tuple[str, ...]] = {"muon": ("m", "v"), "adam": ("m", "v"), "rmsprop": ("s",), "sgd": ()}
UPDATES: dict[str, Update] = {"muon": muon, "adam": adam, "rmsprop": rmsprop, "sgd": sgd}
