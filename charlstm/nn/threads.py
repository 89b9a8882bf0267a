"""Data parallelism: how the streams of a batch are split into parts, and a pool of threads.

The split determines the rounding, so it is a setting of the run. The number of threads or processes has no influence on the result.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

MIN_STREAMS = 8
"""Minimum number of streams in a part; with fewer, a second core does not pay off."""

T = TypeVar("T")


def shards_for(N: int, threads: int) -> int:
    """Return the number of parts for N streams on this many threads."""
    return max(1, min(threads, N // MIN_STREAMS))


def split(N: int, parts: int) -> list[slice]:
    """Split N streams into slices whose sizes differ by at most one."""
    edges = [N * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


class Pool(Protocol):
    """Workers that share independent jobs of unequal length."""

    def share(self, job: Callable[[int], float], jobs: int) -> list[float]:
        """Run job(0) … job(jobs - 1), each on any worker, and return the results in this order."""


@dataclass
class ThreadPool:
    """A pool of threads for one parallel job at a time; use it as a context manager."""

    threads: int

    def __post_init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and `sample` needs none

        others = max(1, self.threads - 1)
        self.executor = ThreadPoolExecutor(others, thread_name_prefix="charlstm", initializer=leave_signals)

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()

    def map(self, job: Callable[[int], T], parts: int) -> list[T]:
        """Run job(0) … job(parts - 1), the first in the calling thread, and return the results in this order."""
        if self.threads <= 1 or parts == 1:
            return [_without_warnings(job, k) for k in range(parts)]
        others = [self.executor.submit(_without_warnings, job, k) for k in range(1, parts)]
        return [_without_warnings(job, 0), *(other.result() for other in others)]

    def share(self, job: Callable[[int], float], jobs: int) -> list[float]:
        """Run job(0) … job(jobs - 1), each thread taking the next one, and return the results in this order."""
        results = [0.0] * jobs
        left = iter(range(jobs))

        def work(_: int) -> None:
            for k in left:
                results[k] = job(k)

        self.map(work, max(1, min(self.threads, jobs)))
        return results


def _without_warnings(job: Callable[[int], T], k: int) -> T:
    """Run a job with NumPy's warnings off: callers check results for overflow, and the setting is per thread."""
    with np.errstate(all="ignore"):
        return job(k)


def leave_signals() -> None:
    """Block all signals in this thread, so that the system delivers them to the main thread, where Python handles them.

    If another thread gets SIGCONT, the main thread can run on before it knows that the process was suspended.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
