"""The memory of one LSTM layer for one window of time: what forward records, and what backward reads and writes.

The names are those of the equations in `charlstm.nn.lstm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from charlstm.nn.layout import blocks, in_blocks, one_half
from charlstm.nn.types import Array, Ids

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

CHUNK_SIZE = 1 << 17
"""Maximum number of gate activations in a chunk: its slopes are still in the cache when the backward loop reads them."""


class ForwardStep(NamedTuple):
    """The arrays that step t of the forward loop reads and writes, as views into a tape; (N, H) unless noted."""

    h_before: Array  # h_{t-1}
    s: Array  # s_t; empty without M
    m: Array  # m_t, or h_{t-1} without M
    m_row: Array  # m_t as the left operand of the product with Uᵀ; (H,) for a single stream
    gates: Array  # (4, N, H)    x_t Wᵀ + b before the step; i, f, o, g after it
    ifo: Array  # (3, N, H)    the sigmoid gates of `gates`
    i: Array
    f: Array
    o: Array
    g: Array
    c_before: Array  # c_{t-1}
    c: Array  # c_t
    tanh_c: Array  # tanh(c_t)
    h: Array  # h_t


class BackwardStep(NamedTuple):
    """The arrays that step t of the backward loop reads and writes, as views into a tape; (N, H) unless noted.

    Each dz takes the memory of its gate, and ds that of s. f is overwritten too, but only after its last use.
    """

    t: int
    f: Array
    slope_c: Array
    slope_if: Array  # (2, N, H)
    slope_o: Array
    slope_g: Array
    dz_if: Array  # (2, N, H)
    dz_o: Array
    dz_g: Array
    dz: Array  # (4, 1, N, H)    all four, as the left operand of the product with U; (4H,) for a single stream
    h_before: Array  # h_{t-1}
    s: Array  # s_t; empty without M


class BackwardChunk(NamedTuple):
    """A run of B steps whose slopes are computed together, as views into a tape."""

    gates: Array  # (4, B, N, H)    i, f, o, g
    c_before: Array  # (B, N, H)
    tanh_c: Array  # (B, N, H)
    slopes: Array  # (4, B, N, H)    of i, f, o, g
    slope_c: Array  # (B, N, H)
    steps: list[BackwardStep]  # from the last to the first


class Tape:
    """The buffers of one layer for windows of one size: allocated once by the caller, written by forward, read by backward.

    They hold `Tape.numbers` numbers, plus scratch space for single steps.
    """

    def __init__(
        self,
        D: int,
        H: int,
        T: int,
        N: int,
        dtype: DTypeLike = np.float32,
        *,
        need_d_x: bool = True,
        multiplicative: bool = False,
    ) -> None:
        """Allocate buffers for windows of T steps, N streams, D inputs and H cells.

        `need_d_x` adds those for d_x, and `multiplicative` those of a layer with M.
        """

        def buffer(*shape: int) -> Array:
            return np.empty(shape, dtype)

        B = self._chunk_steps(H, T, N)
        self.inputs: Array | Ids = buffer(0, N, D)  # the caller's x, by reference
        self.h = buffer(T + 1, N, H)  # h[t] enters step t, h[t + 1] leaves it
        self.c = buffer(T + 1, N, H)  # likewise
        self.m = buffer(T, N, H) if multiplicative else self.h[:-1]
        self.tanh_c = buffer(T, N, H)
        planes = 5 if multiplicative else 4
        self.planes = buffer(planes, T, N, H)  # the gates and, with M, s
        if N == 1:  # the gates of a step are one vector
            self.planes = buffer(T, planes, N, H).swapaxes(0, 1)
        self.gates = self.planes[:4]  # x Wᵀ + b, then i, f, o, g, then dz
        self.s = self.planes[4] if multiplicative else buffer(0, N, H)  # s, then ds
        self.last_gates = buffer(4, N, H)  # i, f, o, g of the last step, which backward does not overwrite
        self.slopes = buffer(4, B, N, H)  # of i, f, o, g
        self.slope_c = buffer(B, N, H)
        self.d_inputs = buffer(T if need_d_x else 0, N, D)
        self.d_share = np.empty_like(self.d_inputs)  # one gate's contribution to d_inputs
        # Scratch space of one step.
        self.z = buffer(4, N, H)  # h Uᵀ in forward; dz U, gate by gate, in backward
        self.product, self.dh = buffer(N, H), buffer(N, H)
        self.dm = buffer(N, H) if multiplicative else self.dh
        self.dc = buffer(N, H), buffer(N, H)  # of step t and of step t-1, by turns
        self.z_blocks = in_blocks(self.z, blocks(N, H, H)) if N > 1 else self.z.reshape(4 * H)
        self.half = one_half(N, H, dtype)
        # Views are made once: making one costs as much as a small elementwise operation.
        self.forward_steps = [
            ForwardStep(h_before, s, m, m if N > 1 else m[0], z, z[:3], z[0], z[1], z[2], z[3], c_before, c, tanh_c, h)
            for h_before, s, m, z, c_before, c, tanh_c, h in zip(
                self.h[:-1],
                self.s if multiplicative else [self.s] * T,
                self.m,
                self.gates.swapaxes(0, 1),
                self.c[:-1],
                self.c[1:],
                self.tanh_c,
                self.h[1:],
                strict=True,
            )
        ]
        self.backward_chunks = [self._chunk(start, min(B, T - start)) for start in reversed(range(0, T, B))]

    @staticmethod
    def numbers(D: int, H: int, T: int, N: int, *, need_d_x: bool, multiplicative: bool) -> int:
        """How many numbers the buffers hold: 7 H per character, 2 H more with M, 2 D if d_x is needed, and the slopes of a chunk."""
        return (7 * H + 2 * H * multiplicative + 2 * D * need_d_x) * T * N + 5 * H * N * Tape._chunk_steps(H, T, N)

    @staticmethod
    def _chunk_steps(H: int, T: int, N: int) -> int:
        return max(1, min(T, CHUNK_SIZE // (4 * N * H)))

    def _chunk(self, start: int, length: int) -> BackwardChunk:
        chunk = slice(start, start + length)
        gates, slopes, slope_c = self.gates[:, chunk], self.slopes[:, :length], self.slope_c[:length]
        steps = []
        for k, slope, z in zip(range(length), slopes.swapaxes(0, 1), gates.swapaxes(0, 1), strict=True):
            t, single = start + k, z.shape[1] == 1
            steps.append(
                BackwardStep(
                    t=t,
                    f=z[1],
                    slope_c=slope_c[k],
                    slope_if=slope[:2],
                    slope_o=slope[2],
                    slope_g=slope[3],
                    dz_if=z[:2],
                    dz_o=z[2],
                    dz_g=z[3],
                    dz=z.reshape(-1) if single else z[:, None],
                    h_before=self.h[t],
                    s=self.s[t] if len(self.s) else self.s,
                )
            )
        return BackwardChunk(gates, self.c[chunk], self.tanh_c[chunk], slopes, slope_c, steps[::-1])
