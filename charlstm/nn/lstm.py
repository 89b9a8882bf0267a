"""One LSTM layer over one window of time: the equations, and right below them their derivatives.

Forward, for t = 1 … T (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)::

    z_t = W x_t + U h_{t-1} + b                 the four gates' pre-activations, stacked as i, f, o, g
    i, f, o = σ(z_i), σ(z_f), σ(z_o)            input, forget and output gate
    g       = tanh(z_g)                         candidate
    c_t = f * c_{t-1} + i * g                   cell state
    h_t = o * tanh(c_t)                         output

Backward, for t = T … 1, with dh and dc arriving from step t+1 and d_y from the layer above (Graves 2012, ch. 4)::

    dh  = d_y_t + dh
    dc  = dc + dh * o * (1 - tanh²(c_t))
    dz_i = dc * g         * i(1 - i)            σ'(z) = σ(1 - σ), of the *activation*
    dz_f = dc * c_{t-1}   * f(1 - f)
    dz_o = dh * tanh(c_t) * o(1 - o)
    dz_g = dc * i         * (1 - g²)            tanh'(z) = 1 - tanh²
    dc  = dc * f
    dh  = Uᵀ dz_t

Only dh and dc depend on the step after. Every factor that multiplies them is known once the forward pass is done, so these
*slopes* are computed for a stretch of steps at a time, as many as the cache holds. The products with W, and all weight gradients,
are one matrix product each over all T*N rows, outside the loop.

In memory a stream is a row: x (T, N, D), h (T, N, H). So z = x Wᵀ + h Uᵀ + b, gate by gate, and each gate's numbers stand
together: (4, T, N, H).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from charlstm.nn.types import Array, Arrays, Ids

FORGET_BIAS = 1.0
"""Initial bias of the forget gate: remember until told otherwise (Jozefowicz et al. 2015)."""

SMALL_PRODUCT = 1_000_000
"""OpenBLAS multiplies matrices as they lie, without packing them first, where rows * inner * columns is at most this (its AVX-512
kernels for small matrices). A recurrent product that is cut into such pieces takes a half to two thirds of the time."""
PIECE_WIDTH = 64
"""Such a piece is fastest at this many columns or fewer: its weights stay in the first cache from row to row."""

STRETCH_NUMBERS = 1 << 17
"""Slopes are computed for so many gate activations at a time: they are still in the cache when the loop needs them."""


def init(rng: np.random.Generator, D: int, H: int, dtype: DTypeLike = np.float32) -> Arrays:
    """Draw the parameters of a layer.

    Weights are uniform within ±1/sqrt(H), biases zero but for the forget gate's.

    Returns:
        ``W`` (4H, D), ``U`` (4H, H), ``b`` (4H,), rows in the order i, f, o, g.
    """
    bound = H**-0.5
    b = np.zeros(4 * H, dtype)
    b[H : 2 * H] = FORGET_BIAS
    return {
        "W": rng.uniform(-bound, bound, (4 * H, D)).astype(dtype),
        "U": rng.uniform(-bound, bound, (4 * H, H)).astype(dtype),
        "b": b,
    }


class Tape:
    """The buffers of one layer for windows of one size: made once by the caller, written by forward, read by backward.

    They take `Tape.numbers`, and a little scratch for single steps.
    """

    def __init__(self, D: int, H: int, T: int, N: int, dtype: DTypeLike = np.float32, *, need_d_x: bool = True) -> None:
        """Buffers for windows of T steps, N streams and D inputs, for H cells; with or without room for the input's gradient."""

        def buffer(*shape: int) -> Array:
            return np.empty(shape, dtype)

        B = self._stretch_steps(H, T, N)
        self.inputs = buffer(0, N, D)  # (T, N, D)    the caller's, by reference
        self.h = buffer(T + 1, N, H)  # h[t] entered step t, h[t + 1] left it
        self.c = buffer(T + 1, N, H)  # the same for the cell state
        self.tanh_c = buffer(T, N, H)
        self.gates = buffer(4, T, N, H)  # what x gives to z; then i, f, o, g; on the way back dz
        if N == 1:
            # In memory (T, 4, N, H): a sweep over all gates of a step is then one run, which a row as short as this feels.
            self.gates = buffer(T, 4, N, H).swapaxes(0, 1)
        self.last_gates = buffer(4, N, H)  # i, f, o, g of the last step, which backward leaves alone
        self.slopes = buffer(4, B, N, H)  # what dc (for i, f, g) or dh (for o) is multiplied with to give dz
        self.slope_c = buffer(B, N, H)  # what dh is multiplied with to add to dc
        self.d_inputs = buffer(T if need_d_x else 0, N, D)
        self.d_share = np.empty_like(self.d_inputs)  # one gate's share of it
        # Scratch of one step, as are those below: h Uᵀ on the way forward, dz U on the way back.
        self.z = buffer(4, N, H)
        self.product, self.dh = buffer(N, H), buffer(N, H)
        self.dc = buffer(N, H), buffer(N, H)
        self.z_pieces = in_pieces(self.z, pieces(N, H, H))
        # Views are cut once: making one costs as much as a small sweep.
        self.forward_steps = [
            (h_before, a, a[:3], *a, c_before, c, tanh_c, h)
            for h_before, a, c_before, c, tanh_c, h in zip(
                self.h[:-1], self.gates.swapaxes(0, 1), self.c[:-1], self.c[1:], self.tanh_c, self.h[1:], strict=True
            )
        ]
        self.stretches = [self._stretch(start, min(B, T - start)) for start in reversed(range(0, T, B))]

    @staticmethod
    def numbers(D: int, H: int, T: int, N: int, *, need_d_x: bool) -> int:
        """How many numbers the buffers hold: 7 H a character, 2 D where the input's gradient is wanted, and the slopes of a stretch."""
        return (7 * H + 2 * D * need_d_x) * T * N + 5 * H * N * Tape._stretch_steps(H, T, N)

    @staticmethod
    def _stretch_steps(H: int, T: int, N: int) -> int:
        return max(1, min(T, STRETCH_NUMBERS // (4 * N * H)))

    def _stretch(self, start: int, length: int) -> tuple[tuple[Array, ...], list[tuple[Any, ...]]]:
        """What `_fill_slopes` takes for some steps, and those steps from the last to the first."""
        here = slice(start, start + length)
        slopes, slope_c = self.slopes[:, :length], self.slope_c[:length]
        steps = [
            (start + k, self.gates[1, start + k], slope_c[k], s[:2], s[2], s[3], a[:2], a[2], a[3], a[:, None])
            for k, s, a in zip(range(length), slopes.swapaxes(0, 1), self.gates[:, here].swapaxes(0, 1), strict=True)
        ]
        return (self.gates[:, here], self.c[here], self.tanh_c[here], slopes, slope_c), steps[::-1]


def forward(
    params: Arrays, x: Array, h0: Array, c0: Array, tape: Tape, ids: Ids | None = None
) -> tuple[Array, Array, Array]:
    """Run the layer over a window.

    Args:
        params: ``W`` (4H, D), ``U`` (4H, H), ``b`` (4H,).
        x: (T, N, D); kept by reference on the tape until backward.
        h0: (N, H), output of the step before the window.
        c0: (N, H), cell state of the step before the window.
        tape: buffers for exactly this window size; overwritten.
        ids: (T, N), where each x_t is one-hot: which of its numbers is 1. The product with W is then a lookup.

    Returns:
        y (T, N, H), a view into the tape that the next forward overwrites; h (N, H) and c (N, H) after the last step, copies.
    """
    T, N, D = x.shape
    H = h0.shape[1]
    W, U, b = (by_gate(params[name]) for name in ("W", "U", "b"))
    zx = tape.gates.reshape(4, T * N, H)  # what the input gives to the gates, for all steps at once
    if ids is None:
        np.matmul(x.reshape(T * N, D), W.swapaxes(1, 2), out=zx)
        zx += b[:, None]
    else:
        rows = np.ascontiguousarray(W.swapaxes(1, 2)) + b[:, None]  # (4, D, H)
        np.take(rows, ids.reshape(-1), axis=1, out=zx, mode="clip")

    tape.inputs = x
    tape.h[0], tape.c[0] = h0, c0
    UT = product_pieces(U.swapaxes(1, 2), N)
    z, z_pieces, product, half = tape.z, tape.z_pieces, tape.product, zx.dtype.type(0.5)
    for h_before, a, ifo, i, f, o, g, c_before, c, tanh_c, h in tape.forward_steps:  # a (4, N, H): all gates
        np.matmul(h_before, UT, out=z_pieces)
        np.add(a, z, out=a)
        np.tanh(a, out=a)
        np.multiply(ifo, half, out=ifo)
        np.add(ifo, half, out=ifo)

        np.multiply(f, c_before, out=c)
        np.multiply(i, g, out=product)
        np.add(c, product, out=c)
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=h)
    tape.last_gates[:] = tape.gates[:, -1]
    return tape.h[1:], tape.h[T].copy(), tape.c[T].copy()


def backward(
    params: Arrays, d_y: Array, d_h: Array, d_c: Array, tape: Tape, *, need_d_x: bool = True
) -> tuple[Arrays, Array | None, Array, Array]:
    """Back through the window that `forward` put on the tape.

    Args:
        params: as given to forward.
        d_y: (T, N, H), gradient of the loss in the outputs y.
        d_h: (N, H), gradient in the h that left the window; zero where BPTT is truncated.
        d_c: (N, H), the same for c.
        tape: as forward left it; its gates are overwritten with dz.
        need_d_x: whether the gradient of the input is wanted.

    Returns:
        the gradients of ``W``, ``U`` and ``b``; of x (T, N, D), a view into the tape, or None; of h0 (N, H); of c0 (N, H).
    """
    T, N, D = tape.inputs.shape
    H = d_h.shape[1]
    U = product_pieces(params["U"].reshape(4, H, H), N)
    shares, dh, product = tape.z, tape.dh, tape.product
    dc, dc_before = tape.dc
    dh[:], dc[:] = d_h, d_c
    for known, steps in tape.stretches:
        _fill_slopes(*known)
        for t, f, slope_c, slope_if, slope_o, slope_g, dz_if, dz_o, dz_g, dz in steps:
            np.add(dh, d_y[t], out=dh)
            np.multiply(dh, slope_c, out=product)
            np.add(dc, product, out=dc)
            np.multiply(dc, f, out=dc_before)
            np.multiply(dc, slope_if, out=dz_if)  # in place of the gates: i and f are needed no longer
            np.multiply(dh, slope_o, out=dz_o)
            np.multiply(dc, slope_g, out=dz_g)
            dc, dc_before = dc_before, dc
            np.matmul(dz, U, out=tape.z_pieces)
            np.add.reduce(shares, axis=0, out=dh)  # over the gates

    dz = tape.gates.reshape(4, T * N, H)
    dzT = dz.swapaxes(1, 2)
    grads = {
        "W": np.matmul(dzT, tape.inputs.reshape(T * N, D)).reshape(4 * H, D),
        "U": np.matmul(dzT, tape.h[:-1].reshape(T * N, H)).reshape(4 * H, H),
        "b": dz.sum(axis=1).reshape(4 * H),
    }
    d_x = None
    if need_d_x:
        d_x = tape.d_inputs
        d_rows, d_share = d_x.reshape(T * N, D), tape.d_share.reshape(T * N, D)
        W = params["W"].reshape(4, H, D)
        np.matmul(dz[0], W[0], out=d_rows)
        for dz_k, W_k in zip(dz[1:], W[1:], strict=True):
            np.matmul(dz_k, W_k, out=d_share)
            d_rows += d_share
    return grads, d_x, dh.copy(), dc.copy()


def _fill_slopes(gates: Array, c_before: Array, tanh_c: Array, slopes: Array, slope_c: Array) -> None:
    """Compute every factor of the backward equations that does not depend on the step after, for the steps of a stretch."""
    i, _, o, g = gates  # (B, N, H) each
    d_i, d_f, d_o, d_g = slopes
    np.subtract(1, gates[:3], out=slopes[:3])
    np.multiply(slopes[:3], gates[:3], out=slopes[:3])  # σ(1 - σ)
    np.multiply(d_i, g, out=d_i)
    np.multiply(d_f, c_before, out=d_f)
    np.multiply(d_o, tanh_c, out=d_o)
    np.multiply(g, g, out=d_g)
    np.subtract(1, d_g, out=d_g)
    np.multiply(d_g, i, out=d_g)
    np.multiply(tanh_c, tanh_c, out=slope_c)
    np.subtract(1, slope_c, out=slope_c)
    np.multiply(slope_c, o, out=slope_c)


# -- how the weights are laid out for the loops ------------------------------------------------------------------------


def by_gate(weights: Array) -> Array:
    """Weights (4H, …) as (4, H, …), with the rows of i, f and o halved, so that one tanh serves all gates: σ(z) = (1 + tanh(z/2)) / 2.

    This form of the sigmoid can't overflow.
    """
    gates = weights.reshape(4, -1, *weights.shape[1:]).copy()
    gates[:3] *= 0.5
    return gates


def product_pieces(weights: Array, N: int) -> Array:
    """The right operand (4, K, H) of a product with N rows as (4, q, K, H/q): cut into q pieces that are `SMALL_PRODUCT`s.

    Where H has no divisor that suits, or the pieces would become too thin to pay, it stays whole.
    """
    _, K, H = weights.shape
    return np.ascontiguousarray(in_pieces(weights, pieces(N, K, H)))


def pieces(N: int, K: int, H: int) -> int:
    """In how many pieces of equal width a product (N, K) @ (K, H) is made: see `product_pieces`."""
    widest = min(PIECE_WIDTH, SMALL_PRODUCT // (N * K)) if N > 1 else H
    return next((q for q in range(1, H // 16 + 1) if H % q == 0 and H // q <= widest), 1)


def in_pieces(a: Array, q: int) -> Array:
    """(4, M, H) cut into q pieces of its columns, as a view (4, q, M, H/q)."""
    _, M, H = a.shape
    return a.reshape(4, M, q, H // q).swapaxes(1, 2)


class Cell:
    """One layer one step at a time, for callers that feed a character and wait: state, weights and views are made once."""

    def __init__(self, weights: Array, inputs: Array, h: Array, c: Array) -> None:
        """A layer whose state h, c (N, H) moves on in place.

        Args:
            weights: (4, K, H), sigmoid gates halved (`by_gate`): what the inputs are multiplied with.
            inputs: (N, K), read at every step; h is, or is a part of it.
            h: (N, H).
            c: (N, H).
        """
        N, H = h.shape
        self.inputs, self.h, self.c = inputs, h, c
        self.weights = product_pieces(weights, N)
        self.z = np.empty((4, N, H), h.dtype)
        self.z_pieces = in_pieces(self.z, self.weights.shape[1])
        self.half = h.dtype.type(0.5)
        self.ifo, (self.i, self.f, self.o, self.g) = self.z[:3], self.z

    def step(self, rest: Array) -> None:
        """The equations of `forward` for one step; `rest` (4, N, H) is what inputs and weights leave out of z."""
        np.matmul(self.inputs, self.weights, out=self.z_pieces)
        np.add(self.z, rest, out=self.z)
        np.tanh(self.z, out=self.z)
        np.multiply(self.ifo, self.half, out=self.ifo)
        np.add(self.ifo, self.half, out=self.ifo)
        np.multiply(self.c, self.f, out=self.c)
        np.multiply(self.i, self.g, out=self.i)
        np.add(self.c, self.i, out=self.c)
        np.tanh(self.c, out=self.h)
        np.multiply(self.h, self.o, out=self.h)
