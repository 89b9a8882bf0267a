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
    step: Arrays  # scratch of one time step

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
            step={"dz": buffer(4 * H, N), "dh": buffer(H, N), "dc": buffer(H, N), "product": buffer(H, N)},
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
    h, c, product = tape.h, tape.c, tape.step["product"]
    h[:, 0], c[0] = h0, c0
    for t in range(T):
        a = tape.gates[t]  # (4H, N)
        np.matmul(U, h[:, t], out=a)
        np.add(a, zx[:, t], out=a)
        np.tanh(a, out=a)
        ifo, i, f, o, g = a[: 3 * H], a[:H], a[H : 2 * H], a[2 * H : 3 * H], a[3 * H :]
        np.multiply(ifo, 0.5, out=ifo)
        np.add(ifo, 0.5, out=ifo)

        np.multiply(f, c[t], out=c[t + 1])
        np.multiply(i, g, out=product)
        np.add(c[t + 1], product, out=c[t + 1])
        np.tanh(c[t + 1], out=tape.tanh_c[t])
        np.multiply(o, tape.tanh_c[t], out=h[:, t + 1])
    return h[:, 1:], h[:, T].copy(), c[T].copy()


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
    dz, UT = tape.z, np.ascontiguousarray(params["U"].T)  # (4H, T, N), (H, 4H)
    dz_t, dh, dc, product = tape.step["dz"], tape.step["dh"], tape.step["dc"], tape.step["product"]
    dh[:], dc[:] = d_h, d_c
    for t in reversed(range(T)):
        slope = tape.slopes[t]
        np.add(dh, d_y[:, t], out=dh)
        np.multiply(dh, tape.slope_c[t], out=product)
        np.add(dc, product, out=dc)
        np.multiply(dc, slope[:H], out=dz_t[:H])
        np.multiply(dc, slope[H : 2 * H], out=dz_t[H : 2 * H])
        np.multiply(dh, slope[2 * H : 3 * H], out=dz_t[2 * H : 3 * H])
        np.multiply(dc, slope[3 * H :], out=dz_t[3 * H :])
        np.multiply(dc, tape.gates[t, H : 2 * H], out=dc)
        np.matmul(UT, dz_t, out=dh)
        dz[:, t] = dz_t

    columns = dz.reshape(4 * H, T * N)
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


def step(z: Array, h: Array, c: Array) -> None:
    """One time step from pre-activations z (4H, N) whose sigmoid rows are halved; h and c (H, N) move on **in place**.

    The same equations as in `forward`, for callers that feed one character at a time; z is overwritten.
    """
    H = len(h)
    np.tanh(z, out=z)
    ifo = z[: 3 * H]
    ifo *= 0.5
    ifo += 0.5
    c *= z[H : 2 * H]
    c += z[:H] * z[3 * H :]
    np.tanh(c, out=h)
    h *= z[2 * H : 3 * H]


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
