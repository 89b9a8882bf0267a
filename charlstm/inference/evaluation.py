"""Evaluation: the loss of a model on a text, and the unigram baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn import loss, model
from charlstm.nn.config import ModelConfig
from charlstm.nn.threads import ThreadPool, split
from charlstm.nn.types import Arrays
from charlstm.text.ids import TextIds, count, log_frequencies

STREAMS, SEQ, STREAM_CHARS = 64, 32, 1000
"""Maximum number of streams, steps per window, and minimum number of characters per stream."""
LOGITS = 1 << 24
"""Maximum number of logits in a window; a large vocabulary gets shorter windows."""


def evaluate(
    params: Arrays, config: ModelConfig, ids: TextIds, pool: ThreadPool | None = None, shards: int = 1
) -> float:
    """Return the mean loss of a whole text, (chars,), in nats per character.

    Every character but the first is predicted once. The text is read in parallel streams, each from a zero state; the
    state of a run is not changed.
    """
    groups = groups_of(ids, shards)

    def job(k: int) -> float:
        return group_nats(params, config, ids, k, groups)

    return sum((pool or ThreadPool(1)).map(job, groups)) / (len(ids) - 1)


def groups_of(ids: TextIds, shards: int) -> int:
    """Return into how many groups the streams of a text are split: one per shard, as far as there are streams."""
    return min(shards, len(streams_of(len(ids) - 1)[0]))


def group_nats(params: Arrays, config: ModelConfig, ids: TextIds, k: int, groups: int) -> float:
    """Return the total loss in nats of one group of the streams of a text; the sum over all groups is that of the text."""
    starts, length = streams_of(len(ids) - 1)
    losses = char_nll(params, config, ids, starts[split(len(starts), groups)[k]], length)
    return sum(float(nll.sum(dtype=np.float64)) for _, nll in losses)


def window_steps(config: ModelConfig) -> int:
    """Return the number of steps in a window."""
    return max(1, min(SEQ, LOGITS // (STREAMS * config.vocabulary)))


def streams_of(pairs: int, context: int = 0) -> tuple[NDArray[np.intp], int]:
    """Return where the stretches of a text with `pairs` predictions start, (stretches,), and their length.

    There are at most `STREAMS` long stretches; with `context`, there are stretches of exactly `context` characters instead.
    """
    N = max(1, min(STREAMS, pairs // STREAM_CHARS))
    length = context or math.ceil(pairs / N)
    return np.arange(0, pairs, length, dtype=np.intp), length


def char_nll(
    params: Arrays, config: ModelConfig, ids: TextIds, starts: NDArray[np.intp], length: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Compute the loss of each character in some stretches of a text, each read from a zero state.

    `STREAMS` stretches are read at a time.

    Args:
        params: parameters of the model.
        config: sizes of the model.
        ids: the text, (chars,).
        starts: where the stretches begin, (stretches,).
        length: characters per stretch; the end of the text may cut it short.

    Yields:
        the positions of the predicted characters and the loss of each in nats, both (n,).
    """
    for first in range(0, len(starts), STREAMS):
        yield from _score_streams(params, config, ids, starts[first : first + STREAMS], length)


def _score_streams(
    params: Arrays, config: ModelConfig, ids: TextIds, starts: NDArray[np.intp], length: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    pairs, N = len(ids) - 1, len(starts)
    T = min(window_steps(config), length)
    state, work = model.State.zero(config, N), model.Workspace.empty(config, T, N)
    for offset in range(0, length, T):
        places = offset + np.arange(T)[:, None] + starts  # (T, N)
        valid = ((np.arange(offset, offset + T) < length)[:, None] & (places < pairs)).reshape(-1)
        window = np.minimum(places, pairs - 1)
        logits, state = model.forward(params, config, ids[window].astype(np.intp), state, work)
        nll = loss.nll(logits, ids[window + 1].reshape(-1).astype(np.intp))
        yield places.reshape(-1)[valid] + 1, nll[valid]


def unigram_nats(train_ids: TextIds, ids: TextIds, V: int) -> float:
    """Return the unigram baseline of `ids` in nats per character, from add-one smoothed counts of `train_ids`."""
    return float(-(count(ids, V) / len(ids)) @ log_frequencies(train_ids, V))
