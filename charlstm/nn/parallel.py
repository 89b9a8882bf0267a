"""A window's streams in parts, so that all cores have work; and threads to do them.

How the streams are parted decides the rounding, so it is a setting of a run; how many threads or processes there are does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

MIN_STREAMS = 8
"""A part is not worth a core with fewer streams than this."""

T = TypeVar("T")


def parts_for(N: int, threads: int) -> int:
    """How many parts suit N streams on so many cores."""
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
