"""Fingerprint of this machine's floating-point arithmetic, which tells whether a resumed run stays bit-identical."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from charlstm import launcher
from charlstm.nn.types import Array

SHAPES = ((1024, 256, 32), (65, 256, 512), (128, 2048, 65), (128, 100, 5))
"""(m, k, n) of products like those of a step, a window and the gradients.

BLAS has other kernels for small products and splits long sums, so each kind is tested."""


def fingerprint() -> str:
    """Return a hash of float32 products, tanh, exp, sqrt and sums; equal where CPU, NumPy and BLAS round alike.

    If several hosts train together, it is one of all their hashes and of the order in which they are summed.
    """
    return launcher.arithmetic or _of_this_process()


@cache
def _of_this_process() -> str:
    digest = hashlib.sha256()
    for m, k, n in SHAPES:
        a, b = _numbers(m, k), _numbers(k, n)
        for product in (a @ b, np.ascontiguousarray(a.T).T @ b):
            squashed = np.tanh(product)
            for array in (product, squashed, np.exp(squashed), np.sqrt(np.abs(product)), product.sum(axis=0)):
                digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _numbers(rows: int, columns: int) -> Array:
    """Return small numbers, (rows, columns), that are exact in float32 and so the same on every machine."""
    places = np.arange(rows * columns, dtype=np.int64)
    return ((places * 7919 % 65521 - 32760) / 2**18).astype(np.float32).reshape(rows, columns)
