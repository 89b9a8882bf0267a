"""How weights are laid out for the recurrent products, whose left operand has few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from charlstm.nn.types import Array

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

SMALL_PRODUCT = 1_000_000
"""OpenBLAS skips packing its operands if rows * inner * columns is at most this (its AVX-512 kernels for small matrices). Cutting
the recurrent product into pieces of this size reduces its time by a third to a half."""
_SIMD = np.show_config(mode="dicts").get("SIMD Extensions", {})
SMALL_KERNELS = not {"X86_V4", "AVX512_SKX"} & set(_SIMD.get("not found", ()))
"""Whether OpenBLAS may have such kernels: not where NumPy looked for AVX-512, by its new or its old name, and did not find it.
Without them a whole product takes less time than its pieces."""
BLOCK_WIDTH = 64
"""Maximum number of columns in such a piece: its weights then stay in the L1 cache from row to row."""
PADDING = 16
"""Numbers left free after each row. Rows at distances of a power of two share cache lines, and to transpose them takes four times as
long."""


def by_gate(weights: Array) -> Array:
    """Copy weights (4H, …) to (4, H, …) and halve those of i, f and o, so that one tanh serves all four gates.

    σ(z) = (1 + tanh(z/2)) / 2, a form of the sigmoid that cannot overflow.
    """
    by_gate = weights.reshape(4, -1, *weights.shape[1:])
    *rows, width = by_gate.shape
    gates: Array = np.empty((*rows, width + PADDING), weights.dtype)[..., :width]
    gates[...] = by_gate
    gates[:3] *= 0.5
    return gates


def product_blocks(weights: Array, N: int) -> Array:
    """Cut the right operand (4, K, H) of a product with N rows into q pieces, each a `SMALL_PRODUCT`: (4, q, K, H/q).

    q is 1 without `SMALL_KERNELS`, if H has no suitable divisor, or if the pieces would be too narrow to pay off. For a single row the
    gates are put side by side instead: (K, 4H), for a product of a vector with one matrix.
    """
    _, K, H = weights.shape
    if N == 1:
        return np.ascontiguousarray(weights.swapaxes(0, 1)).reshape(K, 4 * H)
    return np.ascontiguousarray(in_blocks(weights, blocks(N, K, H)))


def blocks(N: int, K: int, H: int) -> int:
    """The number of pieces of equal width for a product (N, K) @ (K, H); see `product_blocks`."""
    if not SMALL_KERNELS:
        return 1
    widest = min(BLOCK_WIDTH, SMALL_PRODUCT // (N * K))
    return next((q for q in range(1, H // 16 + 1) if H % q == 0 and H // q <= widest), 1)


def product_of(N: int) -> Callable[..., Any]:
    """Return the function for products with N rows: np.matmul, or for a single stream np.dot, which starts faster."""
    return np.dot if N == 1 else np.matmul


def one_half(N: int, H: int, dtype: DTypeLike) -> Array:
    """Return ½ as the second operand of sweeps over gates (3, N, H).

    It is a scalar, or for a single stream a whole array: NumPy takes longer to convert a scalar than to sweep over so few numbers.
    """
    half: Any = np.full((), 0.5, dtype)[()]
    return np.full((3, 1, H), half) if N == 1 else half


def in_blocks(a: Array, q: int) -> Array:
    """Cut the columns of a (4, M, H) into q pieces: a view (4, q, M, H/q)."""
    _, M, H = a.shape
    return a.reshape(4, M, q, H // q).swapaxes(1, 2)
