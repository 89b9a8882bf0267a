"""Work in forked processes: joins what they yield, and ends them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from charlstm.errors import CharlstmError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

BLOCK = 64
"""Steps per block of results that a worker of `run_in_processes` sends."""

T = TypeVar("T")

CAN_FORK = sys.platform == "linux"
"""Whether processes can be forked safely (not on Windows or macOS); if not, threads give the same results."""


def run_in_processes(job: Callable[[int], Iterator[list[T]]], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
    """Run job(0), job(1), … in processes and join what they yield, step by step.

    Args:
        job: yields one list per step.
        sizes: length of the lists of each job.
        nothing: item that fills in for a job that has ended.

    Yields:
        for each step, the items of all jobs, in order.

    Raises:
        CharlstmError: a process died.

    The first job runs in this process. The others have a process each and send their results in blocks; where processes
    can't be forked, all jobs run here.
    """
    if not CAN_FORK or len(sizes) == 1:
        yield from _join([job(k) for k in range(len(sizes))], sizes, nothing)
        return
    from multiprocessing import Pipe  # slow to import and rarely needed

    pids: list[int] = []
    connections: list[Connection] = []
    try:
        for k in range(1, len(sizes)):
            ours, theirs = Pipe(duplex=False)
            pids.append(fork(partial(_send, job(k), theirs, [ours, *connections])))
            connections.append(ours)
            theirs.close()
        yield from _join([job(0), *(_received(connection) for connection in connections)], sizes, nothing)
    finally:
        for pid in pids:
            end(pid)


def _join(made: list[Iterator[list[T]]], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
    for step in itertools.zip_longest(*made):
        yield [
            item
            for items, size in zip(step, sizes, strict=True)
            for item in (items if items is not None else [nothing] * size)
        ]


def _send(made: Iterator[list[T]], connection: Connection, others: Iterable[Connection]) -> None:
    for other in others:
        other.close()
    try:
        while block := list(itertools.islice(made, BLOCK)):
            connection.send(block)
        connection.send([])
    except CharlstmError as error:
        connection.send(error)


def _received(connection: Connection) -> Iterator[list[T]]:
    """Yield what a worker sends; if it dies, raise CharlstmError, because its results can't be recomputed."""
    while True:
        try:
            block = connection.recv()
        except (OSError, EOFError) as error:
            raise CharlstmError("a worker process died: free some memory, or use a smaller -n") from error
        if isinstance(block, CharlstmError):
            raise block
        if not block:
            return
        yield from block


def fork(work: Callable[[], None]) -> int:
    """Do some work in a forked process, which ignores the signals that stop its parent; return its process ID.

    Raises:
        CharlstmError: the system starts no more processes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses nothing that other threads may hold
        try:
            pid = os.fork()
        except OSError as error:
            raise CharlstmError(
                f"a worker process can't be started ({error.strerror}): raise the limit (see 'ulimit -u'), or end other programs"
            ) from error
    if pid:
        return pid
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        work()
    finally:
        os._exit(0)


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, as by SIGSTOP; False where it is unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def end(pid: int) -> None:
    """Kill a forked process and wait for it."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def leave(status: int) -> None:
    """End this process at once, without cleaning up, from any thread."""
    os._exit(status)
