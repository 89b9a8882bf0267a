"""A window's streams in parts, each computed by a thread of its own with single-threaded matrix products.

NumPy lets go of the interpreter lock in its products and sweeps, so the parts run side by side on all cores, elementwise work included,
and meet once a window. Threads inside the products meet at each of them, which costs more, and comes to a halt where another process
wants the same cores. How the streams are parted decides the rounding, so it is a setting of a run; how many threads there are does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.loss import nats
from charlstm.nn.types import Arrays, Ids

MIN_STREAMS = 8
"""A part is not worth a thread with fewer streams than this."""

T = TypeVar("T")


def parts_for(N: int, threads: int) -> int:
    """How many parts suit N streams on so many threads."""
    return max(1, min(threads, N // MIN_STREAMS))


def split(N: int, parts: int) -> list[slice]:
    """N streams in parts that differ by one at most."""
    edges = [N * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@dataclass
class Crew:
    """Threads that work on the parts of one job at a time; close it, or use it as a context manager."""

    threads: int

    def __post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="charlstm")

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()

    def map(self, job: Callable[[int], T], parts: int) -> list[T]:
        """Do job(0) … job(parts - 1) and return the results in this order; the caller's thread takes the first."""
        if self.threads <= 1 or parts == 1:
            return [_without_warnings(job, k) for k in range(parts)]
        others = [self.pool.submit(_without_warnings, job, k) for k in range(1, parts)]
        return [_without_warnings(job, 0), *(other.result() for other in others)]


def _without_warnings(job: Callable[[int], T], k: int) -> T:
    """NumPy's error state belongs to a thread; overflow is looked for in the results, not warned of."""
    with np.errstate(all="ignore"):
        return job(k)


def loss_and_gradients(
    crew: Crew,
    params: Arrays,
    config: ModelConfig,
    inputs: Ids,
    targets: Ids,
    state: model.State,
    works: Sequence[model.Workspace],
    rngs: Sequence[np.random.Generator | None],
) -> tuple[float, Arrays, model.State]:
    """As `model.loss_and_gradients`, with one workspace and one dropout generator for each part of the N streams."""
    parts = split(inputs.shape[1], len(works))

    def job(k: int) -> tuple[float, Arrays, model.State]:
        part = parts[k]
        before = model.State(state.h[:, :, part], state.c[:, :, part])
        ids = inputs[:, part], targets[:, part]
        return model.loss_and_gradients(params, config, *ids, before, works[k], rngs[k], _share(part, inputs))

    done = crew.map(job, len(works))
    loss, grads, _ = done[0]
    for more_loss, more_grads, _ in done[1:]:
        loss += more_loss
        for name, g in grads.items():
            g += more_grads[name]
    h = np.concatenate([after.h for _, _, after in done], axis=2)
    c = np.concatenate([after.c for _, _, after in done], axis=2)
    return loss, grads, model.State(h, c)


def loss(
    crew: Crew,
    params: Arrays,
    config: ModelConfig,
    inputs: Ids,
    targets: Ids,
    state: model.State,
    works: Sequence[model.Workspace],
) -> float:
    """The loss alone, without dropout."""
    parts = split(inputs.shape[1], len(works))

    def job(k: int) -> float:
        part = parts[k]
        before = model.State(state.h[:, :, part], state.c[:, :, part])
        logits, _ = model.forward(params, config, inputs[:, part], before, works[k])
        return _share(part, inputs) * float(nats(logits, targets[:, part].reshape(-1)).mean())

    return sum(crew.map(job, len(works)))


def _share(part: slice, inputs: Ids) -> float:
    """What a part counts for among all streams."""
    return float((part.stop - part.start) / inputs.shape[1])
