"""Tells whether this machine computes to the bit as another one did: the fingerprint of a small computation of the kind that training does."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from charlstm.nn.types import Array

SHAPES = ((1024, 256, 32), (65, 256, 512), (128, 2048, 65), (128, 100, 5))
"""Of products as in a step, out of a window and for the gradients: BLAS has other kernels for small ones, and cuts long sums in pieces."""


@cache
def fingerprint() -> str:
    """The hash of products, tanh, exp and sums in float32: the same where processor, NumPy and BLAS round alike."""
    digest = hashlib.sha256()
    for m, k, n in SHAPES:
        a, b = _numbers(m, k), _numbers(k, n)
        for product in (a @ b, np.ascontiguousarray(a.T).T @ b):
            squashed = np.tanh(product)
            for array in (product, squashed, np.exp(squashed), np.sqrt(np.abs(product)), product.sum(axis=0)):
                digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _numbers(rows: int, columns: int) -> Array:
    """Small numbers that are the same everywhere, because nothing is rounded in making them."""
    places = np.arange(rows * columns, dtype=np.int64)
    return ((places * 7919 % 65521 - 32760) / 2**18).astype(np.float32).reshape(rows, columns)
