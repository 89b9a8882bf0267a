"""Work in forked processes, or on the ranks of an MPI job: joins what they yield, and ends them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from charlstm.errors import CharlstmError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

BLOCK = 16
"""Results that a worker of `run_in_processes` sends at a time."""

T = TypeVar("T")

CAN_FORK = sys.platform == "linux"
"""Whether processes can be forked safely (not on Windows or macOS); if not, threads give the same results."""


class Connection(Protocol):
    """What brings objects to another process."""

    def send(self, obj: Any, /) -> None:
        """Send an object."""

    def recv(self) -> Any:
        """Wait for an object."""


Jobs = Sequence[Callable[[], Iterator[list[T]]]]

on_ranks: Callable[[Jobs[Any]], AbstractContextManager[list[Connection]]] | None = None
"""Starts jobs on the other ranks of an MPI job; set if there are any."""


def run_in_processes(jobs: Jobs[T], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
    """Run jobs in processes and join what they yield, step by step.

    Args:
        jobs: each yields one list per step; under a launcher they are pickled.
        sizes: length of the lists of each job.
        nothing: item that fills in for a job that has ended.

    Yields:
        for each step, the items of all jobs, in order.

    Raises:
        CharlstmError: a process died.

    The first job runs in this process. The others have a process or a rank each and send their results in blocks; where
    processes can't be forked, all jobs run here.
    """
    if on_ranks is not None and len(jobs) > 1:
        with on_ranks(jobs[1:]) as ranks:
            yield from _join([jobs[0](), *map(_received, ranks)], sizes, nothing)
        return
    if len(jobs) == 1:
        yield from jobs[0]()
        return
    if not CAN_FORK:
        yield from _join([job() for job in jobs], sizes, nothing)
        return
    from multiprocessing import Pipe, connection  # slow to import and rarely needed

    pids: list[int] = []
    connections: list[connection.Connection] = []
    try:
        for job in jobs[1:]:
            ours, theirs = Pipe(duplex=False)
            pids.append(fork(partial(_send_from_fork, job(), theirs, [ours, *connections])))
            connections.append(ours)
            theirs.close()
        yield from _join([jobs[0](), *map(_received, connections)], sizes, nothing)
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


def _send_from_fork(made: Iterator[list[T]], connection: Connection, others: Iterable[Any]) -> None:
    for other in others:
        other.close()
    send(made, connection)


def send(made: Iterator[list[T]], connection: Connection) -> None:
    """Send what a job yields in blocks, and then an empty one; or the error that ended it."""
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
