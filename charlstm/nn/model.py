"""The model: characters, a stack of LSTM layers and a softmax projection, forward and backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from charlstm.nn import lstm
from charlstm.nn.config import ModelConfig
from charlstm.nn.loss import softmax_cross_entropy
from charlstm.nn.tape import Tape
from charlstm.nn.types import Array, Arrays, Ids

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

RECURRENT_FROM = 0.25
"""The dropout rate of recurrent weights is the excess of the outputs' rate over this: it helps over many epochs and hurts over few."""


@dataclass
class State:
    """The recurrent state between windows: h and c of every layer, each (L, N, H)."""

    h: Array
    c: Array

    @classmethod
    def zero(cls, config: ModelConfig, N: int, dtype: DTypeLike = np.float32) -> State:
        """Return the state before the first character of N streams."""
        shape = (config.layers, N, config.hidden)
        return cls(np.zeros(shape, dtype), np.zeros(shape, dtype))

    def forget(self, streams: Array) -> State:
        """Return a copy that is zero in the streams where the boolean mask (N,) is true."""
        keep = ~streams[:, None]
        return State(self.h * keep, self.c * keep)


@dataclass
class Workspace:
    """All buffers for training on windows of one size: allocated once, passed to every call; `numbers` is their total size."""

    T: int
    N: int
    tapes: list[Tape]
    inputs: Array  # (T, N, E)    embedded characters; empty without an embedding
    outputs: list[Array]  # per layer (T, N, H)    h, its input added above the first layer if `residual`, after dropout
    layers: list[Arrays]  # per layer W, U, b as forward used them, after dropout of U
    masks: list[Array | None]  # per layer (N, H)    dropout mask of its outputs; None without dropout
    kept: list[Array | None]  # per layer (4H, H)    dropout mask of U; None without dropout
    logits: Array  # (V, T*N)
    top: Array  # (T*N, E)    the top layer's outputs, projected; empty without an embedding

    @classmethod
    def empty(cls, config: ModelConfig, T: int, N: int, dtype: DTypeLike = np.float32) -> Workspace:
        """Allocate buffers for windows of T steps and N streams."""
        V, E = config.vocabulary, config.embedding
        tapes = [
            Tape(D, config.hidden, T, N, dtype, need_d_x=need, multiplicative=multiplicative)
            for D, need, multiplicative in layer_kinds(config)
        ]
        return cls(
            T=T,
            N=N,
            tapes=tapes,
            inputs=np.empty((T, N, E), dtype),
            outputs=[tape.h[1:] for tape in tapes],
            layers=[{}] * config.layers,
            masks=[None] * config.layers,
            kept=[None] * config.layers,
            # The softmax goes column by column; where V is large, contiguous columns are faster.
            logits=np.empty((T * N, V), dtype).T if E else np.empty((V, T * N), dtype),
            top=np.empty((T * N, E), dtype),
        )

    @staticmethod
    def numbers(config: ModelConfig, T: int, N: int) -> int:
        """How many numbers training on such windows holds in memory: the buffers, and the temporary arrays of each step.

        Besides the tapes these are, per character, V for the logits, H for the gradient of the top layer, 3 E with an embedding, and
        H per layer with dropout, and again with residual connections.
        """
        H, L, V = config.hidden, config.layers, config.vocabulary
        tapes = sum(
            Tape.numbers(D, H, T, N, need_d_x=need, multiplicative=multiplicative)
            for D, need, multiplicative in layer_kinds(config)
        )
        return tapes + (V + H + 3 * config.embedding + L * H * (bool(config.dropout) + config.residual)) * T * N


class LayerKind(NamedTuple):
    """What distinguishes a layer from the others of a model."""

    D: int  # width of its input
    need_d_x: bool  # whether training needs the gradient of that input; one-hot characters need none
    multiplicative: bool  # whether it has the matrix M


def layer_kinds(config: ModelConfig) -> list[LayerKind]:
    """Return the kind of each layer, bottom to top."""
    first = LayerKind(config.input_width, config.embedding > 0, config.multiplicative)
    return [first] + [LayerKind(config.hidden, True, False)] * (config.layers - 1)


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter, in a fixed order.

    ``embed.E`` (V, E) if there is an embedding; ``layer1.W`` (4H, D), ``layer1.U`` (4H, H), ``layer1.b`` (4H,) and so on for
    every layer; ``layer1.M`` (H, D) if it is multiplicative; ``out.W`` (V, H), ``out.b`` (V,).

    An embedding is tied to the output (Press & Wolf 2017): ``out.P`` (E, H) replaces ``out.W``, and the logits are E P h + b. A
    large vocabulary then needs no second large matrix, which would cost memory and training examples.
    """
    V, H = config.vocabulary, config.hidden
    result: dict[str, tuple[int, ...]] = {"embed.E": (V, config.embedding)} if config.embedding else {}
    for name, kind in zip(layer_names(config), layer_kinds(config), strict=True):
        result |= {f"{name}.W": (4 * H, kind.D), f"{name}.U": (4 * H, H), f"{name}.b": (4 * H,)}
        result |= {f"{name}.M": (H, kind.D)} if kind.multiplicative else {}
    top: dict[str, tuple[int, ...]] = {"out.P": (config.embedding, H)} if config.embedding else {"out.W": (V, H)}
    return result | top | {"out.b": (V,)}


def parameter_count(config: ModelConfig) -> int:
    """Return how many numbers a model of this shape learns."""
    return sum(math.prod(shape) for shape in shapes(config).values())


def hidden_matrices(config: ModelConfig) -> list[str]:
    """Return the matrices that Muon trains: the U of every layer, and the W of those whose input is not one-hot."""
    names = layer_names(config)
    return [f"{name}.U" for name in names] + [f"{name}.W" for name in names if name != "layer1" or config.embedding]


def layer_names(config: ModelConfig) -> list[str]:
    """Return ``layer1`` … ``layerL``, bottom to top."""
    return [f"layer{k + 1}" for k in range(config.layers)]


def init(
    config: ModelConfig, rng: np.random.Generator, dtype: DTypeLike = np.float32, out_b: Array | None = None
) -> Arrays:
    """Draw all parameters; the only place that initialises any.

    Args:
        out_b: (V,) bias of the output; None for zero. Given the logarithms of the characters' frequencies, the first steps of
            training need not learn them (Karpathy 2019, "A recipe for training neural networks").
    """
    params: Arrays = {}
    if config.embedding:
        spread = config.embedding**-0.5
        params["embed.E"] = (spread * rng.standard_normal((config.vocabulary, config.embedding))).astype(dtype)
    for name, kind in zip(layer_names(config), layer_kinds(config), strict=True):
        layer = lstm.init(rng, kind.D, config.hidden, dtype, multiplicative=kind.multiplicative)
        params |= {f"{name}.{key}": value for key, value in layer.items()}
    bound = config.hidden**-0.5
    name, rows = ("out.P", config.embedding) if config.embedding else ("out.W", config.vocabulary)
    params[name] = rng.uniform(-bound, bound, (rows, config.hidden)).astype(dtype)
    params["out.b"] = np.zeros(config.vocabulary, dtype) if out_b is None else out_b.astype(dtype)
    return params


def forward(
    params: Arrays,
    config: ModelConfig,
    ids: Ids,
    state: State,
    work: Workspace,
    rng: np.random.Generator | None = None,
) -> tuple[Array, State]:
    """Run a window of characters through the model.

    Args:
        ids: (T, N) characters.
        state: the state after the previous window.
        work: buffers for exactly this window size.
        rng: draws the dropout masks; None disables dropout, as in evaluation.

    Returns:
        logits (V, T*N), column t*N + n for step t of stream n, a view into the workspace; the state after the window.
    """
    y: Array | Ids = ids  # one-hot
    if config.embedding:
        y = np.take(params["embed.E"], ids, axis=0, out=work.inputs, mode="clip")
    after = State(np.empty_like(state.h), np.empty_like(state.c))
    for k, name in enumerate(layer_names(config)):
        layer = work.layers[k] = _drop_weights(part(params, name), k, config, work, rng)
        h, after.h[k], after.c[k] = lstm.forward(layer, y, state.h[k], state.c[k], work.tapes[k])
        y = work.outputs[k] = _drop(h + y if config.residual and k else h, k, config, work, rng)
    if config.embedding:
        np.matmul(_rows(y), params["out.P"].T, out=work.top)
        np.matmul(work.top, params["embed.E"].T, out=work.logits.T)
    else:
        np.matmul(params["out.W"], _rows(y).T, out=work.logits)
    work.logits += params["out.b"][:, None]
    return work.logits, after


def backward(
    params: Arrays, config: ModelConfig, d_logits: Array, ids: Ids, work: Workspace, grads: Arrays | None = None
) -> Arrays:
    """Compute the gradient of every parameter from d_logits (V, T*N), after `forward` with the same ids (T, N) and workspace.

    The gradients are written to `grads`; None allocates them. The gradient with respect to the state before the window is discarded: truncated BPTT (Williams & Peng 1990).
    """
    if grads is None:
        grads = {name: np.empty_like(p) for name, p in params.items()}
    np.add.reduce(d_logits, axis=1, out=grads["out.b"])
    y = _rows(work.outputs[-1])
    if config.embedding:
        d_top = np.matmul(d_logits.T, params["embed.E"])  # (T*N, E)
        np.matmul(d_logits, work.top, out=grads["embed.E"])
        np.matmul(d_top.T, y, out=grads["out.P"])
        d_y: Array = np.matmul(d_top, params["out.P"])
    else:
        np.matmul(d_logits, y, out=grads["out.W"])
        d_y = np.matmul(d_logits.T, params["out.W"])
    d_y = d_y.reshape(work.T, work.N, config.hidden)
    cut = np.zeros((work.N, config.hidden), d_y.dtype)
    for k, name in reversed(list(enumerate(layer_names(config)))):
        mask = work.masks[k]
        if mask is not None:
            d_y *= mask
        need_d_x = layer_kinds(config)[k].need_d_x
        layer_grads, d_x, _, _ = lstm.backward(
            work.layers[k], d_y, cut, cut, work.tapes[k], need_d_x=need_d_x, grads=part(grads, name)
        )
        kept = work.kept[k]
        if kept is not None:
            layer_grads["U"] *= kept
        if d_x is not None:
            if config.residual and k:
                d_x += d_y
            d_y = d_x
    if config.embedding:
        grads["embed.E"] += _sum_by_id(_rows(d_y), ids.reshape(-1), config.vocabulary)
    return grads


def loss_and_gradients(
    params: Arrays,
    config: ModelConfig,
    inputs: Ids,
    targets: Ids,
    state: State,
    work: Workspace,
    rng: np.random.Generator | None = None,
    share: float = 1.0,
    grads: Arrays | None = None,
) -> tuple[float, Arrays, State]:
    """Compute the loss (mean nats per character) of predicting targets (T, N) from inputs (T, N), its gradients, and the new state.

    Loss and gradients are multiplied by `share`, the weight of these streams in a larger batch. The gradients are written to `grads`;
    None allocates them.
    """
    logits, after = forward(params, config, inputs, state, work, rng)
    loss, d_logits = softmax_cross_entropy(logits, targets.reshape(-1))
    if share != 1:
        d_logits *= share
    return share * loss, backward(params, config, d_logits, inputs, work, grads), after


def saturated(work: Workspace) -> float:
    """Return the share of gates within 1 % of a limit, over all layers, at the last step of the last window; such gates learn little."""
    count = size = 0
    for tape in work.tapes:
        gates = tape.last_gates  # (4, N, H)
        count += int(np.count_nonzero(np.abs(gates[:3] - 0.5) > 0.49))
        count += int(np.count_nonzero(np.abs(gates[3]) > 0.98))
        size += gates.size
    return count / size


def part(params: Arrays, name: str) -> Arrays:
    """Return the parameters of one layer, or their gradients, as W, U, b, and M if it has one."""
    return {key: params[f"{name}.{key}"] for key in ("W", "U", "b", "M") if f"{name}.{key}" in params}


def _rows(y: Array) -> Array:
    """View (T, N, H) as the matrix (T*N, H)."""
    return y.reshape(-1, y.shape[-1])


def _drop(y: Array, k: int, config: ModelConfig, work: Workspace, rng: np.random.Generator | None) -> Array:
    """Apply inverted dropout to layer k's output (T, N, H), with one mask for all steps of the window (Gal & Ghahramani 2016)."""
    if rng is None or config.dropout == 0:
        work.masks[k] = None
        return y
    keep = 1 - config.dropout
    mask = (rng.random(y.shape[1:], dtype=np.float32) < keep).astype(y.dtype)
    mask /= keep
    work.masks[k] = mask
    dropped: Array = y * mask
    return dropped


def _drop_weights(
    layer: Arrays, k: int, config: ModelConfig, work: Workspace, rng: np.random.Generator | None
) -> Arrays:
    """Apply inverted dropout to layer k's recurrent weights, with one mask for the whole window (Merity et al. 2018).

    Dropout of outputs regularises the layers above; this regularises the layer itself.
    """
    share = max(0.0, config.dropout - RECURRENT_FROM)
    if rng is None or share == 0:
        work.kept[k] = None
        return layer
    U, levels = layer["U"], 256  # one random byte per weight is precise enough, and fast
    keep = max(1, round(levels * (1 - share)))
    kept = (rng.integers(levels, size=U.shape, dtype=np.uint8) < keep).astype(U.dtype)
    kept *= levels / keep
    work.kept[k] = kept
    return layer | {"U": U * kept}


def _sum_by_id(d: Array, ids: Ids, V: int) -> Array:
    """Sum the rows of d (M, E) by their ids (M,): (V, E)."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    total = np.zeros((V, d.shape[1]), d.dtype)
    total[ordered[starts]] = np.add.reduceat(d[order], starts, axis=0)
    return total
