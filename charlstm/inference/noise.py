"""The random numbers of sampling: each text has its own, however many texts are written at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from charlstm.nn.types import Array

SMALLEST = np.float32(1e-30)
"""Replaces a uniform random number of 0, which has no logarithm."""
BLOCK_NUMBERS, BLOCK_TOTAL = 1 << 14, 1 << 18
"""Approximate maximum of random numbers drawn at a time, for one text and for all together."""


class Noise:
    """Standard Gumbel noise, drawn in blocks; each text gets the noise that it would get alone.

    In float32 the noise is cut off at 16.6, which one number in 16 million would exceed.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], V: int) -> None:
        """Draw from these generators, one per text, for V characters."""
        self.rngs, self.V = list(rngs), V
        self.block = np.empty((0, V, len(rngs)), np.float32)

    def take(self) -> Array:
        """Return the noise of the next step, (V, n)."""
        if not len(self.block):
            steps = max(1, min(BLOCK_NUMBERS // self.V, BLOCK_TOTAL // (self.V * len(self.rngs))))
            u = np.stack([rng.random((steps, self.V), np.float32) for rng in self.rngs], axis=2)
            np.log(np.maximum(u, SMALLEST, out=u), out=u)
            np.log(np.negative(u, out=u), out=u)
            self.block = np.negative(u, out=u)
        noise: Array = self.block[0]
        self.block = self.block[1:]
        return noise

    def keep(self, streams: Sequence[int]) -> None:
        """Drop all other streams."""
        self.rngs = [self.rngs[k] for k in streams]
        self.block = self.block[:, :, streams]
