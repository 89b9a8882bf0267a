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
    dz_o = dh * tanh(c_t) * o(1 - o)            σ'(z) = σ(1 - σ), of the *activation*
    dz_i = dc * g         * i(1 - i)
    dz_f = dc * c_{t-1}   * f(1 - f)
    dz_g = dc * i         * (1 - g²)            tanh'(z) = 1 - tanh²
    dc  = dc * f
    dh  = Uᵀ dz_t

Only dh and dc depend on the step after. Every factor that multiplies them is known once the forward pass is done, so all
T steps of those factors are computed in a few long sweeps before the loop. The products with W, and all weight
gradients, are one matrix product each over all T*N columns, outside the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from charlstm.nn.types import Array, Arrays

FORGET_BIAS = 1.0
"""Initial bias of the forget gate: remember until told otherwise (Jozefowicz et al. 2015)."""


@dataclass
class Tape:
    """The buffers of one layer for windows of one size: made once by the caller, written by forward, read by backward.

    They take (16 H + D) * T * N numbers and a little scratch.
    """

    inputs: Array  # (D, T, N)    the caller's, by reference
    h: Array  # (H, T+1, N)    h[:, t] entered step t, h[:, t+1] left it
    c: Array  # (T+1, H, N)    the same for the cell state
    tanh_c: Array  # (T, H, N)
    gates: Array  # (T, 4H, N)    i, f, o, g after their squashing
    z: Array  # (4H, T, N)    W x + b on the way forward, dz on the way back
    slopes: Array  # (T, 4H, N)    what dc (for i, f, g) or dh (for o) is multiplied with to give dz
    slope_c: Array  # (T, H, N)    what dh is multiplied with to add to dc
    d_inputs: Array  # (D, T, N)
    dz: Array  # (4H, N)    scratch of one time step, as are the three below
    dh: Array  # (H, N)
    dc: Array  # (H, N)
    product: Array  # (H, N)

    def __post_init__(self) -> None:
        """Cut the buffers into time steps, once: making a view costs as much as a small sweep."""
        H, T = len(self.h), len(self.c) - 1
        i, f, o, g = (slice(k * H, (k + 1) * H) for k in range(4))
        self.forward_steps = [
            (self.h[:, t], self.z[:, t], a, a[: 3 * H], a[i], a[f], a[o], a[g], *state)
            for t, a, *state in zip(
                range(T), self.gates, self.c[:-1], self.c[1:], self.tanh_c, self.h.transpose(1, 0, 2)[1:], strict=True
            )
        ]
        self.backward_steps = [
            (t, self.gates[t, f], s[i], s[f], s[o], s[g], self.slope_c[t], self.z[:, t])
            for t, s in reversed(list(zip(range(T), self.slopes, strict=True)))
        ]
        self.dz_gates = self.dz[i], self.dz[f], self.dz[o], self.dz[g]

    @classmethod
    def empty(cls, D: int, H: int, T: int, N: int, dtype: DTypeLike) -> Tape:
        """Buffers for windows of T steps, N streams and D inputs, for H cells."""

        def buffer(*shape: int) -> Array:
            return np.empty(shape, dtype)

        return cls(
            inputs=buffer(D, 0, N),
            h=buffer(H, T + 1, N),
            c=buffer(T + 1, H, N),
            tanh_c=buffer(T, H, N),
            gates=buffer(T, 4 * H, N),
            z=buffer(4 * H, T, N),
            slopes=buffer(T, 4 * H, N),
            slope_c=buffer(T, H, N),
            d_inputs=buffer(D, T, N),
            dz=buffer(4 * H, N),
            dh=buffer(H, N),
            dc=buffer(H, N),
            product=buffer(H, N),
        )


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


def halve_sigmoid_rows(weights: Array, H: int) -> Array:
    """Halve the rows of i, f and o in a (4H, …) array, so that one tanh serves all four gates: σ(z) = (1 + tanh(z/2)) / 2.

    This form of the sigmoid can't overflow.
    """
    halved = weights.copy()
    halved[: 3 * H] *= 0.5
    return halved


def forward(params: Arrays, x: Array, h0: Array, c0: Array, tape: Tape) -> tuple[Array, Array, Array]:
    """Run the layer over a window.

    Args:
        params: ``W`` (4H, D), ``U`` (4H, H), ``b`` (4H,).
        x: (D, T, N), each feature's T*N numbers in one run; kept by reference on the tape until backward.
        h0: (H, N), output of the step before the window.
        c0: (H, N), cell state of the step before the window.
        tape: buffers for exactly this window size; overwritten.

    Returns:
        y (H, T, N), a view into the tape that the next forward overwrites; h (H, N) and c (H, N) after the last step, copies.
    """
    D, T, N = x.shape
    H = len(h0)
    U = halve_sigmoid_rows(params["U"], H)
    zx = tape.z  # (4H, T, N): what the input gives to the gates, for all steps at once
    np.matmul(halve_sigmoid_rows(params["W"], H), x.reshape(D, T * N), out=zx.reshape(4 * H, T * N))
    zx += halve_sigmoid_rows(params["b"], H)[:, None, None]

    tape.inputs = x
    tape.h[:, 0], tape.c[0] = h0, c0
    product, half = tape.product, zx.dtype.type(0.5)
    for h_before, zx_t, a, ifo, i, f, o, g, c_before, c, tanh_c, h in tape.forward_steps:  # a (4H, N): all gates
        np.matmul(U, h_before, out=a)
        np.add(a, zx_t, out=a)
        np.tanh(a, out=a)
        np.multiply(ifo, half, out=ifo)
        np.add(ifo, half, out=ifo)

        np.multiply(f, c_before, out=c)
        np.multiply(i, g, out=product)
        np.add(c, product, out=c)
        np.tanh(c, out=tanh_c)
        np.multiply(o, tanh_c, out=h)
    return tape.h[:, 1:], tape.h[:, T].copy(), tape.c[T].copy()


def backward(
    params: Arrays, d_y: Array, d_h: Array, d_c: Array, tape: Tape, *, need_d_x: bool = True
) -> tuple[Arrays, Array | None, Array, Array]:
    """Back through the window that `forward` put on the tape.

    Args:
        params: as given to forward.
        d_y: (H, T, N), gradient of the loss in the outputs y.
        d_h: (H, N), gradient in the h that left the window; zero where BPTT is truncated.
        d_c: (H, N), the same for c.
        tape: as forward left it; its ``z`` is overwritten.
        need_d_x: whether the gradient of the input is wanted.

    Returns:
        the gradients of ``W``, ``U`` and ``b``; of x (D, T, N), a view into the tape, or None; of h0 (H, N); of c0 (H, N).
    """
    D, T, N = tape.inputs.shape
    H = len(d_h)
    _fill_slopes(tape)
    UT = np.ascontiguousarray(params["U"].T)  # (H, 4H)
    dz, dh, dc, product = tape.dz, tape.dh, tape.dc, tape.product
    dz_i, dz_f, dz_o, dz_g = tape.dz_gates
    dh[:], dc[:] = d_h, d_c
    for t, f, slope_i, slope_f, slope_o, slope_g, slope_c, dz_t in tape.backward_steps:
        np.add(dh, d_y[:, t], out=dh)
        np.multiply(dh, slope_c, out=product)
        np.add(dc, product, out=dc)
        np.multiply(dc, slope_i, out=dz_i)
        np.multiply(dc, slope_f, out=dz_f)
        np.multiply(dh, slope_o, out=dz_o)
        np.multiply(dc, slope_g, out=dz_g)
        np.multiply(dc, f, out=dc)
        np.matmul(UT, dz, out=dh)
        dz_t[:] = dz

    columns = tape.z.reshape(4 * H, T * N)  # the forward pass's W x + b gave way to dz
    h_before = tape.h.reshape(H, (T + 1) * N)[:, : T * N]  # (H, T*N): h_{t-1} of every column
    grads = {
        "W": columns @ tape.inputs.reshape(D, T * N).T,
        "U": columns @ h_before.T,
        "b": columns.sum(axis=1),
    }
    d_x = None
    if need_d_x:
        d_x = tape.d_inputs
        np.matmul(params["W"].T, columns, out=d_x.reshape(D, T * N))
    return grads, d_x, dh.copy(), dc.copy()


@dataclass
class Cell:
    """One layer one step at a time, for callers that feed a character and wait: state and views are made once."""

    z: Array  # (4H, N)    to be filled with pre-activations whose sigmoid rows are halved
    h: Array  # (H, N)    moves on in place, as does c
    c: Array  # (H, N)

    def __post_init__(self) -> None:
        H = len(self.h)
        self.half = self.z.dtype.type(0.5)
        self.ifo, self.i, self.f = self.z[: 3 * H], self.z[:H], self.z[H : 2 * H]
        self.o, self.g = self.z[2 * H : 3 * H], self.z[3 * H :]

    def step(self) -> None:
        """The equations of `forward`, for one step."""
        np.tanh(self.z, out=self.z)
        np.multiply(self.ifo, self.half, out=self.ifo)
        np.add(self.ifo, self.half, out=self.ifo)
        np.multiply(self.c, self.f, out=self.c)
        np.multiply(self.i, self.g, out=self.i)
        np.add(self.c, self.i, out=self.c)
        np.tanh(self.c, out=self.h)
        np.multiply(self.h, self.o, out=self.h)


def _fill_slopes(tape: Tape) -> None:
    """Compute, for all steps at once, every factor of the backward equations that does not depend on the step after."""
    H = tape.c.shape[1]
    i, _, o, g = (tape.gates[:, k * H : (k + 1) * H] for k in range(4))
    d_i, d_f, d_o, d_g = (tape.slopes[:, k * H : (k + 1) * H] for k in range(4))
    ifo, d_ifo = tape.gates[:, : 3 * H], tape.slopes[:, : 3 * H]
    np.subtract(1, ifo, out=d_ifo)
    np.multiply(d_ifo, ifo, out=d_ifo)  # σ(1 - σ)
    np.multiply(d_i, g, out=d_i)
    np.multiply(d_f, tape.c[:-1], out=d_f)
    np.multiply(d_o, tape.tanh_c, out=d_o)
    np.multiply(g, g, out=d_g)
    np.subtract(1, d_g, out=d_g)
    np.multiply(d_g, i, out=d_g)
    np.multiply(tape.tanh_c, tape.tanh_c, out=tape.slope_c)
    np.subtract(1, tape.slope_c, out=tape.slope_c)
    np.multiply(tape.slope_c, o, out=tape.slope_c)
