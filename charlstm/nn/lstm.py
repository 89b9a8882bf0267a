"""One LSTM layer over one window of time: forward, backward right below it, and the equations of both.

Forward, for t = 1 … T (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)::

    s_t = 2 σ(M x_t)                              scale of the last output, by the input; 1 in a layer without M
    m_t = s_t * h_{t-1}
    z_t = W x_t + U m_t + b                       pre-activations of the four gates, stacked as i, f, o, g
    i, f, o = σ(z_i), σ(z_f), σ(z_o)              input, forget and output gate
    g   = tanh(z_g)                               candidate
    c_t = f * c_{t-1} + i * g                     cell state
    h_t = o * tanh(c_t)                           output

Backward, for t = T … 1 (Graves 2012, ch. 4). d_a is the gradient of the loss with respect to a; dh and dc arrive from step
t+1, d_y_t from the layer above::

    dh  = dh + d_y_t
    dc  = dc + dh * slope_c                       slope_c = o * (1 - tanh²(c_t))
    dz_i = dc * slope_i                           slope_i = g * i(1 - i)              σ'(z) = σ(1 - σ)
    dz_f = dc * slope_f                           slope_f = c_{t-1} * f(1 - f)
    dz_o = dh * slope_o                           slope_o = tanh(c_t) * o(1 - o)
    dz_g = dc * slope_g                           slope_g = i * (1 - g²)              tanh'(z) = 1 - tanh²(z)
    dc  = dc * f
    dm_t = Uᵀ dz_t
    dh  = dm_t * s_t

and, once every dz_t and dm_t is known::

    d_W = Σ dz_t x_tᵀ      d_U = Σ dz_t m_tᵀ      d_b = Σ dz_t
    d_M = Σ da_t x_tᵀ      da_t = dm_t * h_{t-1} * s_t (2 - s_t) / 2      d_x_t = Wᵀ dz_t + Mᵀ da_t

M is a round of the Mogrifier (Melis et al. 2020), or the diagonal form of a multiplicative LSTM (Krause et al. 2016): before every
character, what the layer has just put out acts otherwise, for one elementwise product. It begins as zero, so s_t begins as 1.

Only dh and dc depend on step t+1, so only they need the loop. The slopes follow from the forward pass alone and are computed for
a chunk of steps at a time. The input products and the four sums are one matrix product per gate over all T*N rows.

A one-hot x_t has a single 1, so W x_t is a column of W, and column v of d_W is the sum of the dz_t whose x_t is character v.

In memory a stream is a row, so the code computes z = x Wᵀ + m Uᵀ + b and dm = dz U, with x (T, N, D) and h (T, N, H). The
gates are stored one after another, and with M, s after them: (4, T, N, H) or (5, T, N, H).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from charlstm.nn.layout import by_gate, product_blocks, product_of
from charlstm.nn.one_hot import sum_by_id
from charlstm.nn.tape import BackwardChunk, Tape
from charlstm.nn.types import Array, Arrays, Ids

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

FORGET_BIAS = 1.0
"""Initial bias of the forget gate, so that an untrained cell remembers (Jozefowicz et al. 2015)."""


def init(
    rng: np.random.Generator, D: int, H: int, dtype: DTypeLike = np.float32, *, multiplicative: bool = False
) -> Arrays:
    """Draw the parameters of a layer.

    Weights are uniform within ±1/sqrt(H). Biases are zero, except `FORGET_BIAS` for the forget gate. M is zero.

    Returns:
        ``W`` (4H, D), ``U`` (4H, H), ``b`` (4H,), rows in the order i, f, o, g; ``M`` (H, D) if it is `multiplicative`.
    """
    bound = H**-0.5
    b = np.zeros(4 * H, dtype)
    b[H : 2 * H] = FORGET_BIAS
    return {
        "W": rng.uniform(-bound, bound, (4 * H, D)).astype(dtype),
        "U": rng.uniform(-bound, bound, (4 * H, H)).astype(dtype),
        "b": b,
    } | ({"M": np.zeros((H, D), dtype)} if multiplicative else {})


def forward(params: Arrays, x: Array | Ids, h0: Array, c0: Array, tape: Tape) -> tuple[Array, Array, Array]:
    """Run the layer over a window.

    Args:
        params: ``W`` (4H, D), ``U`` (4H, H), ``b`` (4H,), and ``M`` (H, D) if the tape is for a multiplicative layer.
        x: (T, N, D), or ids (T, N), which stand for one-hot inputs; the tape keeps a reference to it until backward.
        h0: (N, H), output of the step before the window.
        c0: (N, H), cell state of the step before the window.
        tape: buffers for exactly this window size; overwritten.

    Returns:
        y (T, N, H), a view into the tape that the next forward overwrites; h (N, H) and c (N, H) after the last step, copies.
    """
    T, N, H = len(x), *h0.shape
    W, U, b = (by_gate(params[name]) for name in ("W", "U", "b"))  # (4, H, D), (4, H, H), (4, H)
    M = params.get("M")
    zx = tape.planes.reshape(-1, T * N, H)  # x Wᵀ + b, and with M s, for all steps at once
    if x.ndim == 3:
        x_rows = x.reshape(T * N, -1)
        np.matmul(x_rows, W.swapaxes(1, 2), out=zx[:4])
        zx[:4] += b[:, None]
        if M is not None:
            zx[4] = scale(x_rows @ M.T)
    else:
        rows = np.empty((len(zx), W.shape[2], H), zx.dtype)  # of every character
        np.add(W.swapaxes(1, 2), b[:, None], out=rows[:4])
        if M is not None:
            rows[4] = scale(M.T)
        np.take(rows, x.reshape(-1), axis=1, out=zx, mode="clip")

    tape.inputs = x
    tape.h[0], tape.c[0] = h0, c0
    UT = product_blocks(U.swapaxes(1, 2), N)
    z, z_blocks, product, half, multiply = tape.z, tape.z_blocks, tape.product, tape.half, product_of(N)
    for h_before, s, m, m_row, gates, ifo, i, f, o, g, c_before, c, tanh_c, h in tape.forward_steps:
        if M is not None:
            np.multiply(h_before, s, out=m)  # m_t = s_t * h_{t-1}
        multiply(m_row, UT, out=z_blocks)  # z = x Wᵀ + b + m_t Uᵀ
        np.add(gates, z, out=gates)
        np.tanh(gates, out=gates)  # g = tanh(z_g)
        np.multiply(ifo, half, out=ifo)  # i, f, o = σ(z) = (1 + tanh(z/2)) / 2; `by_gate` halved z
        np.add(ifo, half, out=ifo)

        np.multiply(f, c_before, out=c)  # c_t = f * c_{t-1} + i * g
        np.multiply(i, g, out=product)
        np.add(c, product, out=c)
        np.tanh(c, out=tanh_c)  # h_t = o * tanh(c_t)
        np.multiply(o, tanh_c, out=h)
    tape.last_gates[:] = tape.gates[:, -1]
    return tape.h[1:], tape.h[T].copy(), tape.c[T].copy()


def backward(
    params: Arrays,
    d_y: Array,
    d_h: Array,
    d_c: Array,
    tape: Tape,
    *,
    need_d_x: bool = True,
    grads: Arrays | None = None,
) -> tuple[Arrays, Array | None, Array, Array]:
    """Propagate gradients back through the window that `forward` recorded on the tape.

    Args:
        params: as passed to forward.
        d_y: (T, N, H), gradient with respect to the outputs y.
        d_h: (N, H), gradient with respect to h after the last step; zero where BPTT is truncated.
        d_c: (N, H), gradient with respect to c after the last step; zero where BPTT is truncated.
        tape: as forward left it; dz overwrites its gates, so it serves one backward only.
        need_d_x: whether to compute the gradient of the input; one-hot inputs have none.
        grads: arrays for the gradients of the parameters; None allocates them.

    Returns:
        the gradients of the parameters; of x (T, N, D), a view into the tape, or None; of h0 (N, H); of c0 (N, H).
    """
    x, T, N, H = tape.inputs, len(tape.inputs), *d_h.shape
    if grads is None:
        grads = {name: np.empty_like(p) for name, p in params.items()}
    z, z_blocks, product, dh, dm = tape.z, tape.z_blocks, tape.product, tape.dh, tape.dm
    multiply, U, M = product_of(N), params["U"], params.get("M")
    if N == 1:
        z_blocks = dm[0]
    else:
        U = product_blocks(U.reshape(4, H, H), N)
    dc, dc_before = tape.dc
    dh[:], dc[:] = d_h, d_c
    for chunk in tape.backward_chunks:
        _fill_slopes(chunk)
        for t, f, slope_c, slope_if, slope_o, slope_g, dz_if, dz_o, dz_g, dz, h_before, s in chunk.steps:
            np.add(dh, d_y[t], out=dh)  # dh = dh + d_y_t
            np.multiply(dh, slope_c, out=product)  # dc = dc + dh * slope_c
            np.add(dc, product, out=dc)
            np.multiply(dc, f, out=dc_before)  # before dz_f overwrites f
            np.multiply(dc, slope_if, out=dz_if)  # dz = dc * slope, or dh * slope for o
            np.multiply(dh, slope_o, out=dz_o)
            np.multiply(dc, slope_g, out=dz_g)
            dc, dc_before = dc_before, dc  # dc = dc * f
            multiply(dz, U, out=z_blocks)  # dm = dz U, summed over the gates
            if N > 1:  # with a single stream, the product has summed already
                np.add.reduce(z, axis=0, out=dm)
            if M is not None:
                np.multiply(dm, s, out=dh)  # dh = dm_t * s_t
                np.multiply(dm, h_before, out=s)  # ds_t = dm_t * h_{t-1}

    dz = tape.gates.reshape(4, T * N, H)
    d_W, d_U, d_b = (grads[name].reshape(4, H, *grads[name].shape[1:]) for name in ("W", "U", "b"))
    np.matmul(dz.swapaxes(1, 2), tape.m.reshape(T * N, H), out=d_U)
    if x.ndim == 3:
        x_rows = x.reshape(T * N, -1)
        np.matmul(dz.swapaxes(1, 2), x_rows, out=d_W)
        np.add.reduce(dz, axis=1, out=d_b)
        if M is not None:
            da = tape.s.reshape(T * N, H) * _scale_slope(x_rows @ M.T)
            np.matmul(da.T, x_rows, out=grads["M"])
    else:  # what depends on the character alone is applied to the sums
        sums = sum_by_id(tape.planes.reshape(-1, T * N, H), x.reshape(-1), d_W.shape[2])
        d_W[...] = sums[:4].swapaxes(1, 2)
        np.add.reduce(sums[:4], axis=1, out=d_b)
        if M is not None:
            grads["M"][...] = (sums[4] * _scale_slope(M.T)).T
    d_x = None
    if need_d_x:
        D, d_x = x.shape[2], tape.d_inputs
        d_rows, d_share = d_x.reshape(T * N, D), tape.d_share.reshape(T * N, D)
        W = params["W"].reshape(4, H, D)
        np.matmul(dz[0], W[0], out=d_rows)  # d_x = dz W, summed over the gates
        for dz_k, W_k in zip(dz[1:], W[1:], strict=True):
            np.matmul(dz_k, W_k, out=d_share)
            d_rows += d_share
        if M is not None:
            np.matmul(da, M, out=d_share)
            d_rows += d_share
    return grads, d_x, dh.copy(), dc.copy()


def scale(a: Array) -> Array:
    """Return 2 σ(a) = 1 + tanh(a/2), which cannot overflow."""
    s: Array = 1 + np.tanh(a / 2)
    return s


def _scale_slope(a: Array) -> Array:
    s = scale(a)
    slope: Array = s * (2 - s) / 2
    return slope


def _fill_slopes(chunk: BackwardChunk) -> None:
    """Compute the slopes of a chunk from what the forward pass recorded."""
    i, _, o, g = chunk.gates  # (B, N, H) each
    slope_i, slope_f, slope_o, slope_g = chunk.slopes
    c_before, tanh_c, slope_c = chunk.c_before, chunk.tanh_c, chunk.slope_c
    np.subtract(1, chunk.gates[:3], out=chunk.slopes[:3])
    np.multiply(chunk.slopes[:3], chunk.gates[:3], out=chunk.slopes[:3])  # σ(1 - σ), for i, f and o at once
    np.multiply(slope_i, g, out=slope_i)  # slope_i = g * i(1 - i)
    np.multiply(slope_f, c_before, out=slope_f)  # slope_f = c_{t-1} * f(1 - f)
    np.multiply(slope_o, tanh_c, out=slope_o)  # slope_o = tanh(c_t) * o(1 - o)
    np.multiply(g, g, out=slope_g)  # slope_g = i * (1 - g²)
    np.subtract(1, slope_g, out=slope_g)
    np.multiply(slope_g, i, out=slope_g)
    np.multiply(tanh_c, tanh_c, out=slope_c)  # slope_c = o * (1 - tanh²(c_t))
    np.subtract(1, slope_c, out=slope_c)
    np.multiply(slope_c, o, out=slope_c)
