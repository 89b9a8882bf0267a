"""A hand-written LSTM as many people write it, with the mistakes that many people make, each behind a switch of its own.

One layer, one stream, float64 (unless asked otherwise), a loop over the characters of a window. With no mistake switched on it is
right: it passes the gradient check and equals `charlstm.nn`. `tests/test_mistakes.py` shows how each mistake is caught, `tests/experiments/nan.py`
what each does to training.

In the shapes below V is the vocabulary, H the cells, T the characters of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import DTypeLike

from charlstm.nn.types import Array, Arrays, Ids


@dataclass(frozen=True)
class Mistakes:
    """Which mistakes are made; none of them unless it is said."""

    sigmoid_slope: bool = False  # σ'(z) is computed from the activation σ(z), as if that were z
    tanh_slope: bool = False  # the same for tanh'
    state_swapped: bool = False  # h comes in as c, and c as h
    position_fed: bool = False  # the place of a character in the window goes in, not the character
    gradient_carried: bool = False  # the backward pass begins with the dh and dc that the last one ended with
    window_overrun: bool = False  # the short window at the end of the text runs over all T places of its buffers
    softmax_unshifted: bool = False  # exp of the logits as they are
    biases_drawn: bool = False  # biases are random like weights, the forget gate's among them
    gradients_summed: bool = False  # gradients are the sum over the window, and the rate is as for a mean


NONE = Mistakes()
NAMES = tuple(field.name for field in fields(Mistakes))
ALL = Mistakes(**dict.fromkeys(NAMES, True))


def only(name: str) -> Mistakes:
    """One mistake and no other."""
    return replace(NONE, **{name: True})


# -- the parts ----------------------------------------------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))


def sigmoid_slope(a: Array, wrong: bool) -> Array:
    """σ'(z) from the activation a = σ(z); wrong: σ(a) (1 - σ(a)), which is σ' in another place."""
    return sigmoid(a) * (1 - sigmoid(a)) if wrong else a * (1 - a)


def tanh_slope(a: Array, wrong: bool) -> Array:
    """tanh'(z) from the activation a = tanh(z); wrong: 1 - tanh²(a)."""
    return 1 - np.tanh(a) ** 2 if wrong else 1 - a**2


def softmax(logits: Array, unshifted: bool) -> Array:
    e = np.exp(logits) if unshifted else np.exp(logits - logits.max())
    return e / e.sum()


def surprise(logits: Array, target: int, unshifted: bool) -> float:
    """-log p[target]."""
    if unshifted:
        return float(-np.log(softmax(logits, unshifted)[target]))
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[target])


# -- the model ----------------------------------------------------------------------------------------------------------


def init(rng: np.random.Generator, V: int, H: int, mistakes: Mistakes = NONE) -> Arrays:
    """Weights drawn as randn / sqrt(z/2), where z is how many numbers come in.

    Returns:
        W (4H, V), U (4H, H), b (4H,), rows in the order i, f, o, g; Wy (V, H), by (V,).
    """
    gates, top = np.sqrt((H + V) / 2), np.sqrt(H / 2)
    params = {
        "W": rng.standard_normal((4 * H, V)) / gates,
        "U": rng.standard_normal((4 * H, H)) / gates,
        "b": np.zeros(4 * H),
        "Wy": rng.standard_normal((V, H)) / top,
        "by": np.zeros(V),
    }
    if mistakes.biases_drawn:
        params["b"] = rng.standard_normal(4 * H) / gates
        params["by"] = rng.standard_normal(V) / top
    else:
        params["b"][H : 2 * H] = 1  # the forget gate begins open
    return params


@dataclass
class Tape:
    """What one time step leaves for the way back."""

    character: int
    h_before: Array  # (H,)
    c_before: Array  # (H,)
    gates: tuple[Array, Array, Array, Array]  # i, f, o, g
    c: Array  # (H,)
    h: Array  # (H,)
    p: Array  # (V,)
    target: int


def forward(
    params: Arrays, inputs: Ids, targets: Ids, h: Array, c: Array, mistakes: Mistakes = NONE
) -> tuple[float, Array, Array, list[Tape]]:
    """Read a window: inputs and targets (T,), from the state h and c (H,).

    Returns:
        the surprise of all targets together, in nats; h and c (H,) after the window; the tape.
    """
    H, V = len(h), len(params["by"])
    if mistakes.state_swapped:
        h, c = c, h
    total, tape = 0.0, []
    for t in range(len(inputs)):
        # Where T is above V, NumPy refuses the position as an index, and the mistake is found at once; so here it wraps.
        character = t % V if mistakes.position_fed else int(inputs[t])
        z = params["W"][:, character] + params["U"] @ h + params["b"]  # (4H,)
        i, f, o, g = sigmoid(z[:H]), sigmoid(z[H : 2 * H]), sigmoid(z[2 * H : 3 * H]), np.tanh(z[3 * H :])
        h_before, c_before = h, c
        c = f * c_before + i * g
        h = o * np.tanh(c)
        logits = params["Wy"] @ h + params["by"]  # (V,)
        total += surprise(logits, targets[t], mistakes.softmax_unshifted)
        p = softmax(logits, mistakes.softmax_unshifted)
        tape.append(Tape(character, h_before, c_before, (i, f, o, g), c, h, p, int(targets[t])))
    return total, h, c, tape


def backward(
    params: Arrays, tape: list[Tape], dh: Array, dc: Array, mistakes: Mistakes = NONE
) -> tuple[Arrays, Array, Array]:
    """The way back through a window, from the dh and dc (H,) that leave it at its end: zero where BPTT is cut.

    Returns:
        gradients of the total surprise in every parameter, and in the h and c (H,) that the loop began with.
    """
    H = len(dh)
    grads = {"W": np.zeros_like(params["W"])}
    dys, dzs = [], []
    for step in reversed(tape):
        i, f, o, g = step.gates
        dy = step.p.copy()  # (V,)
        dy[step.target] -= 1
        dh = dh + params["Wy"].T @ dy
        tanh_c = np.tanh(step.c)
        dc = dc + dh * o * tanh_slope(tanh_c, mistakes.tanh_slope)
        dz = np.empty_like(params["b"])  # (4H,)
        dz[:H] = dc * g * sigmoid_slope(i, mistakes.sigmoid_slope)
        dz[H : 2 * H] = dc * step.c_before * sigmoid_slope(f, mistakes.sigmoid_slope)
        dz[2 * H : 3 * H] = dh * tanh_c * sigmoid_slope(o, mistakes.sigmoid_slope)
        dz[3 * H :] = dc * i * tanh_slope(g, mistakes.tanh_slope)
        grads["W"][:, step.character] += dz
        dc = dc * f
        dh = params["U"].T @ dz
        dys.append(dy)
        dzs.append(dz)
    dy_all, dz_all = np.stack(dys, axis=1), np.stack(dzs, axis=1)  # (V, T), (4H, T), last step first
    grads["U"] = dz_all @ np.stack([step.h_before for step in reversed(tape)])
    grads["b"] = dz_all.sum(axis=1)
    grads["Wy"] = dy_all @ np.stack([step.h for step in reversed(tape)])
    grads["by"] = dy_all.sum(axis=1)
    return grads, dh, dc


@dataclass
class Carried:
    """What goes from one window to the next; each array is (H,). dh and dc only by mistake."""

    h: Array
    c: Array
    dh: Array
    dc: Array

    @classmethod
    def zero(cls, H: int, dtype: DTypeLike = np.float64) -> Carried:
        return cls(*(np.zeros(H, dtype) for _ in range(4)))


def loss_and_gradients(
    params: Arrays, inputs: Ids, targets: Ids, before: Carried, mistakes: Mistakes = NONE
) -> tuple[float, Arrays, Carried]:
    """Mean loss in nats a character, the gradients that the weights are moved by, and what is carried on."""
    T, zero = len(inputs), np.zeros_like(before.h)
    total, h, c, tape = forward(params, inputs, targets, before.h, before.c, mistakes)
    dh, dc = (before.dh, before.dc) if mistakes.gradient_carried else (zero, zero)
    grads, dh, dc = backward(params, tape, dh, dc, mistakes)
    if not mistakes.gradients_summed:
        grads = {name: g / T for name, g in grads.items()}
    return total / T, grads, Carried(h, c, dh, dc)


# -- training -----------------------------------------------------------------------------------------------------------


def windows(ids: Ids, T: int, mistakes: Mistakes = NONE) -> Iterator[tuple[Ids, Ids]]:
    """Inputs and targets of one pass over a text (chars,): windows of T characters, and a shorter one for the rest."""
    inputs, targets = np.zeros(T, np.intp), np.zeros(T, np.intp)
    for start in range(0, len(ids) - 1, T):
        n = min(T, len(ids) - 1 - start)
        inputs[:n], targets[:n] = ids[start : start + n], ids[start + 1 : start + n + 1]
        n = T if mistakes.window_overrun else n  # behind n there is still what the window before has left
        yield inputs[:n].copy(), targets[:n].copy()


@dataclass(frozen=True)
class Row:
    """The four quantities to watch, at one step."""

    step: int
    loss_nats: float  # mean a character, before the step
    cell_max: float  # largest |c| that the window ended with
    grad_norm: float
    weight_norm: float  # after the step


def norm(arrays: Arrays) -> float:
    """Euclidean norm of all arrays as one vector; the squares can't overflow before the numbers do."""
    largest = float(np.max([np.abs(a).max() for a in arrays.values()]))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.sqrt(sum(float(((a / largest) ** 2).sum()) for a in arrays.values())))


def train(
    ids: Ids,
    V: int,
    H: int,
    T: int,
    lr: float,
    steps: int,
    mistakes: Mistakes = NONE,
    seed: int = 1,
    dtype: DTypeLike = np.float64,
) -> Iterator[Row]:
    """Plain gradient descent over the text, again and again, until `steps` windows are read; it never looks where it goes."""
    params = {name: p.astype(dtype) for name, p in init(np.random.default_rng(seed), V, H, mistakes).items()}
    step = 0
    while True:
        recurrent_state = Carried.zero(H, dtype)
        for inputs, targets in windows(ids, T, mistakes):
            if step == steps:
                return
            loss, grads, recurrent_state = loss_and_gradients(params, inputs, targets, recurrent_state, mistakes)
            for name, g in grads.items():
                params[name] -= lr * g
            step += 1
            yield Row(step, loss, float(np.abs(recurrent_state.c).max()), norm(grads), norm(params))
