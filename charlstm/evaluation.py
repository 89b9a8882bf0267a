"""How good a model is on a text, and what chance and letter frequencies would give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn import loss as losses
from charlstm.nn import model, parallel
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays

STREAMS, SEQ, STREAM_CHARS = 64, 32, 1000
"""A text is read in so many streams at most, in windows of so many, each stream of at least so many characters."""
LOGITS = 1 << 24
"""A window of a large vocabulary is made shorter, so that it has no more logits than this."""
COUNT_CHARS = 1 << 18
"""Characters are counted so many at a time."""


def evaluate(
    params: Arrays, config: ModelConfig, ids: NDArray[Any], crew: parallel.Crew | None = None, parts: int = 1
) -> float:
    """Mean loss in nats a character over a whole text (chars,), of which every character but the first is predicted once.

    The text is read in parallel streams, each from a zero state of its own; nothing of a run is touched.
    """
    pairs = len(ids) - 1
    starts, length = streams_of(pairs)
    groups = parallel.split(len(starts), min(parts, len(starts)))

    def job(k: int) -> float:
        found = surprises(params, config, ids, starts[groups[k]], length)
        return sum(float(nats.sum(dtype=np.float64)) for _, nats in found)

    return sum((crew or parallel.Crew(1)).map(job, len(groups))) / pairs


def window_steps(config: ModelConfig) -> int:
    """How many steps a window has."""
    return max(1, min(SEQ, LOGITS // (STREAMS * config.vocabulary)))


def streams_of(pairs: int, cold: int = 0) -> tuple[NDArray[np.intp], int]:
    """How a text of so many predictions is read: where its stretches start, and how long they are.

    There are `STREAMS` long stretches, fewer for a short text; or stretches of exactly `cold` characters.
    """
    N = max(1, min(STREAMS, pairs // STREAM_CHARS))
    length = cold or math.ceil(pairs / N)
    return np.arange(0, pairs, length, dtype=np.intp), length


def surprises(
    params: Arrays, config: ModelConfig, ids: NDArray[Any], starts: NDArray[np.intp], length: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Predict the characters after each place of some stretches of a text, `STREAMS` stretches at a time, each from a zero state.

    Args:
        params: the model's.
        config: the model's.
        ids: the text (chars,).
        starts: where the stretches begin (stretches,).
        length: of a stretch; the text may end sooner.

    Yields:
        the places of the characters that were predicted, and the surprise of each in nats; both (n,).
    """
    for first in range(0, len(starts), STREAMS):
        yield from _side_by_side(params, config, ids, starts[first : first + STREAMS], length)


def _side_by_side(
    params: Arrays, config: ModelConfig, ids: NDArray[Any], starts: NDArray[np.intp], length: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    pairs, N = len(ids) - 1, len(starts)
    T = min(window_steps(config), length)
    state, work = model.State.zero(config, N), model.Workspace.empty(config, T, N)
    for offset in range(0, length, T):
        places = offset + np.arange(T)[:, None] + starts  # (T, N)
        valid = ((np.arange(offset, offset + T) < length)[:, None] & (places < pairs)).reshape(-1)
        window = np.minimum(places, pairs - 1)
        logits, state = model.forward(params, config, ids[window].astype(np.intp), state, work)
        nats = losses.nats(logits, ids[window + 1].reshape(-1).astype(np.intp))
        yield places.reshape(-1)[valid] + 1, nats[valid]


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
