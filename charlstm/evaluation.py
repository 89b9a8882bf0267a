"""How good a model is on a text, and what chance and letter frequencies would give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn import loss as losses
from charlstm.nn import model, parallel
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays

STREAMS, SEQ, STREAM_CHARS = 64, 32, 1000
"""A text is read in so many streams at most, in windows of so many, each stream of at least so many characters."""
COUNT_CHARS = 1 << 18
"""Characters are counted so many at a time."""


def evaluate(
    params: Arrays, config: ModelConfig, ids: NDArray[Any], crew: parallel.Crew | None = None, parts: int = 1
) -> float:
    """Mean loss in nats a character over a whole text (chars,), of which every character but the first is predicted once.

    The text is read in parallel streams, each from a zero state of its own; nothing of a run is touched.
    """
    pairs = len(ids) - 1
    N = max(1, min(STREAMS, pairs // STREAM_CHARS))
    streams = parallel.split(N, min(parts, N))

    def job(k: int) -> float:
        return _surprise(params, config, ids, N, np.arange(streams[k].start, streams[k].stop))

    return sum((crew or parallel.Crew(1)).map(job, len(streams))) / pairs


def _surprise(params: Arrays, config: ModelConfig, ids: NDArray[Any], N: int, streams: NDArray[Any]) -> float:
    """Nats of all characters that some of N streams predict."""
    pairs = len(ids) - 1
    length = math.ceil(pairs / N)
    T = min(SEQ, length)
    state, work = model.State.zero(config, len(streams)), model.Workspace.empty(config, T, len(streams))
    total = 0.0
    for start in range(0, length, T):
        places = start + np.arange(T)[:, None] + streams * length  # (T, N)
        valid = (np.arange(start, start + T) < length)[:, None] & (places < pairs)
        window = np.minimum(places, pairs - 1)
        logits, state = model.forward(params, config, ids[window].astype(np.intp), state, work)
        surprise = losses.nats(logits, ids[window + 1].reshape(-1).astype(np.intp))
        total += float(surprise[valid.reshape(-1)].sum(dtype=np.float64))
    return total


def letters_nats(train_ids: NDArray[Any], ids: NDArray[Any], V: int) -> float:
    """Nats a character of `ids` under the letter frequencies of `train_ids`, each count raised by one."""
    counts = _count(train_ids, V) + 1.0
    return float(-(_count(ids, V) / len(ids)) @ np.log(counts / counts.sum()))


def _count(ids: NDArray[Any], V: int) -> NDArray[np.int64]:
    """How often each id occurs; in pieces, because bincount makes eight bytes of every id."""
    total = np.zeros(V, np.int64)
    for start in range(0, len(ids), COUNT_CHARS):
        total += np.bincount(ids[start : start + COUNT_CHARS], minlength=V)
    return total
