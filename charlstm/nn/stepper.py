"""The model one character at a time, for sampling: no tape, and weights arranged for small products."""

from __future__ import annotations

import numpy as np

from charlstm.nn.config import ModelConfig
from charlstm.nn.layout import by_gate, in_blocks, one_half, product_blocks, product_of
from charlstm.nn.lstm import scale
from charlstm.nn.model import layer_names, part
from charlstm.nn.types import Array, Arrays, Ids


class Stepper:
    """The model one character at a time, for N streams, with its own state and buffers; the state starts at zero.

    The weights are rearranged once. The product of a one-hot character with W becomes a row lookup that includes the bias. The h of
    all layers share one array, so that W and U of a layer above the first need a single product, with a slice of that array.
    """

    def __init__(self, params: Arrays, config: ModelConfig, N: int) -> None:
        """Rearrange the weights for N streams."""
        H, L, dtype = config.hidden, config.layers, params["out.b"].dtype
        self.h = np.zeros((N, L * H), dtype)
        self.cells: list[Cell] = []
        biases: list[Array] = []
        self.scaled = np.empty((N, H), dtype)  # h of the first layer, scaled by the character
        self.scales: Array | None = None  # (V, H), s of every character
        for k, name in enumerate(layer_names(config)):
            layer = part(params, name)
            W, U, b = (by_gate(layer[key]) for key in ("W", "U", "b"))
            # The input is h of the layer below; with residual connections it is the sum of h of all layers below.
            below = min(k, 1) if not config.residual else k  # number of layers
            weights = np.concatenate([W] * below + [U], axis=2) if k else U  # (4, H, (below + 1) H)
            own = slice(k * H, (k + 1) * H)
            inputs = self.scaled if "M" in layer else self.h[:, (k - below) * H : own.stop]
            self.cells.append(Cell(weights.swapaxes(1, 2), inputs, self.h[:, own], np.zeros((N, H), dtype)))
            biases.append(np.repeat(b[:, None], N, axis=1))  # (4, N, H)
            if k == 0:
                x = params["embed.E"] @ W.swapaxes(1, 2) if config.embedding else W.swapaxes(1, 2)
                x += b[:, None]  # x is an array of its own
                self.rows = np.ascontiguousarray(x.swapaxes(0, 1))[:, :, None]  # (V, 4, 1, H)
                if "M" in layer:
                    M = layer["M"].T
                    self.scales = scale(params["embed.E"] @ M if config.embedding else M)
        self.above = list(zip(self.cells[1:], biases[1:], strict=True))
        self.sum = np.empty((N, H), dtype) if config.residual and L > 1 else None
        y = self.cells[-1].h if self.sum is None else self.sum
        self.top, self.projection = params["embed.E" if config.embedding else "out.W"], params.get("out.P")
        self.logits = np.empty((config.vocabulary, N), dtype)
        # A single stream has vectors in the place of matrices with one column.
        self.y = y.T if N > 1 else y[0]
        self.columns = self.logits if N > 1 else self.logits[:, 0]
        self.bias = params["out.b"][:, None] if N > 1 else params["out.b"]
        self.multiply = product_of(N)

    def step(self, ids: Ids) -> Array:
        """Feed one character to each stream: ids (N,). Returns logits (V, N), in a buffer that the next step overwrites."""
        first = self.cells[0]
        chosen = ids if len(ids) > 1 else ids[0]
        if self.scales is not None:
            np.multiply(first.h, self.scales[chosen], out=self.scaled)
        first.step(self.rows[ids, :, 0].swapaxes(0, 1) if len(ids) > 1 else self.rows[chosen])
        below = first.h
        for cell, bias in self.above:
            cell.step(bias)
            if self.sum is not None:  # the logits read the sum of h of all layers
                below = np.add(below, cell.h, out=self.sum)
        y = self.y if self.projection is None else self.projection @ self.y
        self.multiply(self.top, y, out=self.columns)
        np.add(self.columns, self.bias, out=self.columns)
        return self.logits

    def save(self, stream: int) -> Array:
        """Return a copy of the state of one stream, (2 L H,)."""
        return np.concatenate([self.h[stream], *(cell.c[stream] for cell in self.cells)])

    def restore(self, stream: int, state: Array) -> None:
        """Set the state of one stream to one that `save` returned, possibly of another stepper of the same model."""
        LH, L = self.h.shape[1], len(self.cells)
        self.h[stream] = state[:LH]
        for cell, c in zip(self.cells, state[LH:].reshape(L, -1), strict=True):
            cell.c[stream] = c


class Cell:
    """One layer, one step at a time, for sampling: it owns its state, and makes weights and views once."""

    def __init__(self, weights: Array, inputs: Array, h: Array, c: Array) -> None:
        """Set up a layer that updates its state, h and c, in place.

        Args:
            weights: (4, K, H), the right operand of the product with the inputs, laid out by `by_gate`.
            inputs: (N, K), read at every step; h is usually a part of it.
            h: (N, H).
            c: (N, H).
        """
        N, H = h.shape
        self.inputs, self.h, self.c = inputs if N > 1 else inputs[0], h, c
        self.weights = product_blocks(weights, N)
        self.z = np.empty((4, N, H), h.dtype)
        self.z_blocks = in_blocks(self.z, self.weights.shape[1]) if N > 1 else self.z.reshape(4 * H)
        self.multiply = product_of(N)
        self.half = one_half(N, H, h.dtype)
        self.ifo, (self.i, self.f, self.o, self.g) = self.z[:3], self.z

    def step(self, rest: Array) -> None:
        """Apply the forward equations once; `rest` (4, N, H) is the part of z that is not inputs times weights."""
        self.multiply(self.inputs, self.weights, out=self.z_blocks)
        np.add(self.z, rest, out=self.z)
        np.tanh(self.z, out=self.z)
        np.multiply(self.ifo, self.half, out=self.ifo)
        np.add(self.ifo, self.half, out=self.ifo)
        np.multiply(self.c, self.f, out=self.c)
        np.multiply(self.i, self.g, out=self.i)
        np.add(self.c, self.i, out=self.c)
        np.tanh(self.c, out=self.h)
        np.multiply(self.h, self.o, out=self.h)
