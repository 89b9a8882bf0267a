"""Data-parallel training: processes that share memory compute the shards of a window, each with one BLAS thread.

All cores stay busy, in elementwise work too, and synchronize once per window. Threads inside BLAS synchronize at every
matrix product, which costs more and stalls when another process wants the same cores. Python threads, one per shard,
would wait for the GIL a few thousand times per window. So on Linux each shard has a process of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from charlstm.errors import CharlstmError
from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.loss import nats
from charlstm.nn.parallel import Crew, split
from charlstm.nn.types import Array, Arrays, Ids

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

BLOCK = 64
"""Steps per block of results that a worker of `side_by_side` sends."""

T = TypeVar("T")

FORKS = sys.platform == "linux"
"""Whether processes can be forked safely (not on Windows or macOS); if not, threads give the same results."""


class Desk:
    """Buffers of one shard of the streams: its inputs and results, in memory that processes can share."""

    def __init__(self, params: Arrays, config: ModelConfig, T: int, N: int, share: float) -> None:
        """Allocate buffers for windows of T steps and N streams, whose loss has the weight `share` in the total."""
        dtype = params["out.b"].dtype
        self.params, self.config, self.share = params, config, share
        self.work = model.Workspace.empty(config, T, N, dtype)
        self.ids = shared((2, T, N), np.intp)  # inputs and targets
        self.before, self.after = (
            model.State(*(shared((config.layers, N, config.hidden), dtype) for _ in "hc")) for _ in range(2)
        )
        self.loss = shared((1,), np.float64)
        self.seed = shared((1,), np.int64)  # seed of the dropout masks; -1: no dropout
        self.grads = {name: shared(p.shape, p.dtype) for name, p in params.items()}

    def compute(self) -> None:
        """Run `model.loss_and_gradients` on the buffers."""
        rng = None if self.seed[0] < 0 else np.random.default_rng(int(self.seed[0]))
        self.loss[0], grads, after = model.loss_and_gradients(
            self.params, self.config, self.ids[0], self.ids[1], self.before, self.work, rng, self.share
        )
        for name, g in grads.items():
            self.grads[name][...] = g
        self.after.h[...], self.after.c[...] = after.h, after.c


class Team:
    """Computes loss and gradients of all shards in parallel; use it as a context manager.

    The caller computes the first shard and worker processes the others; with fewer cores than shards, or where
    processes can't be forked, a thread pool computes all of them. If a worker dies (for lack of memory, say), the
    caller computes its shard from then on.
    """

    def __init__(self, crew: Crew, params: Arrays, config: ModelConfig, T: int, N: int, parts: int) -> None:
        """Allocate for windows of T steps and N streams; `move_to_shared_memory` must have moved the parameters before."""
        self.crew, self.slices = crew, split(N, parts)
        sizes = [s.stop - s.start for s in self.slices]
        self.desks = [Desk(params, config, T, size, size / N) for size in sizes]
        self.workers: dict[int, _Worker] = {}
        if FORKS and crew.threads >= parts:
            for k, desk in enumerate(self.desks[1:], start=1):
                self.workers[k] = _Worker(desk, [worker.line for worker in self.workers.values()])

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.end()

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: model.State, seeds: Iterable[int] | None = None
    ) -> tuple[float, Arrays, model.State]:
        """Compute mean loss, gradients and final state of all streams, as `model.loss_and_gradients` does.

        Args:
            inputs: (T, N).
            targets: (T, N).
            state: of all streams, before the window.
            seeds: seeds of the dropout masks, one per shard; None: no dropout.

        The gradients are overwritten by the next call.
        """
        for desk, part, seed in zip(
            self.desks, self.slices, seeds or itertools.repeat(-1, len(self.desks)), strict=True
        ):
            desk.ids[0], desk.ids[1] = inputs[:, part], targets[:, part]
            desk.before.h[...], desk.before.c[...] = state.h[:, part], state.c[:, part]
            desk.seed[0] = seed
        self._compute()
        first, *others = self.desks
        for other in others:
            for name, g in first.grads.items():
                g += other.grads[name]
        after = model.State(
            np.concatenate([desk.after.h for desk in self.desks], axis=1),
            np.concatenate([desk.after.c for desk in self.desks], axis=1),
        )
        return float(sum(desk.loss[0] for desk in self.desks)), first.grads, after

    def _compute(self) -> None:
        if not self.workers:
            self.crew.map(lambda k: self.desks[k].compute(), len(self.desks))
            return
        for worker in self.workers.values():
            worker.begin()
        with np.errstate(all="ignore"):
            for k, desk in enumerate(self.desks):
                if k not in self.workers or not self.workers[k].finished():
                    desk.compute()

    def loss(self, params: Arrays, inputs: Ids, targets: Ids, state: model.State) -> float:
        """Return the mean loss of `params` on a window, in nats per character and without dropout."""

        def job(k: int) -> float:
            part, desk = self.slices[k], self.desks[k]
            before = model.State(state.h[:, part], state.c[:, part])
            logits, _ = model.forward(params, desk.config, inputs[:, part], before, desk.work)
            return desk.share * float(nats(logits, targets[:, part].reshape(-1)).mean())

        return sum(self.crew.map(job, len(self.desks)))

    def saturated(self) -> float:
        """Return `model.saturated` of the first shard after its last window."""
        return model.saturated(self.desks[0].work)


class _Worker:
    """A forked process that computes one shard on request, and exits when its parent does.

    It detects that because its socket is closed at the other end, so it must not keep copies of the parent's ends of
    its own socket or of those of earlier workers.
    """

    def __init__(self, desk: Desk, earlier: Iterable[socket.socket]) -> None:
        self.line, theirs = socket.socketpair()
        self.pid = _fork(lambda: _serve(desk, theirs, [self.line, *earlier]))
        theirs.close()

    def begin(self) -> None:
        """Start computing the buffers; `finished` reports a worker that has died."""
        with contextlib.suppress(OSError):
            self.line.send(b"\0")

    def finished(self) -> bool:
        """Wait until the shard is computed; return False if the worker has died."""
        try:
            return bool(self.line.recv(1))
        except OSError:
            return False

    def end(self) -> None:
        """Terminate the worker."""
        self.line.close()
        _end(self.pid)


def _serve(desk: Desk, line: socket.socket, others: Iterable[socket.socket]) -> None:
    for other in others:
        other.close()
    while line.recv(1):
        desk.compute()
        line.send(b"\0")


def side_by_side(job: Callable[[int], Iterator[list[T]]], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
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
    if not FORKS or len(sizes) == 1:
        yield from _join([job(k) for k in range(len(sizes))], sizes, nothing)
        return
    from multiprocessing import Pipe  # slow to import and rarely needed

    pids: list[int] = []
    lines: list[Connection] = []
    try:
        for k in range(1, len(sizes)):
            ours, theirs = Pipe(duplex=False)
            pids.append(_fork(partial(_send, job(k), theirs, [ours, *lines])))
            lines.append(ours)
            theirs.close()
        yield from _join([job(0), *(_received(line) for line in lines)], sizes, nothing)
    finally:
        for pid in pids:
            _end(pid)


def _join(made: list[Iterator[list[T]]], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
    for step in itertools.zip_longest(*made):
        yield [
            item
            for items, size in zip(step, sizes, strict=True)
            for item in (items if items is not None else [nothing] * size)
        ]


def _send(made: Iterator[list[T]], line: Connection, others: Iterable[Connection]) -> None:
    for other in others:
        other.close()
    while block := list(itertools.islice(made, BLOCK)):
        line.send(block)
    line.send([])


def _received(line: Connection) -> Iterator[list[T]]:
    """Yield what a worker sends; if it dies, raise CharlstmError, because its results can't be recomputed."""
    while True:
        try:
            block = line.recv()
        except (OSError, EOFError) as error:
            raise CharlstmError("a worker process died: free some memory, or use a smaller -n") from error
        if not block:
            return
        yield from block


def _fork(work: Callable[[], None]) -> int:
    """Do some work in a forked process, which ignores the signals that stop its parent; return its process ID."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child uses nothing that other threads may hold
        pid = os.fork()
    if pid:
        return pid
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        with np.errstate(all="ignore"):
            work()
    finally:
        os._exit(0)


def _end(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def move_to_shared_memory(arrays: Arrays) -> None:
    """Replace every array in the dict by a copy in shared memory, so that worker processes see what is written to it later."""
    for name, a in arrays.items():
        arrays[name] = shared(a.shape, a.dtype)
        arrays[name][...] = a


def shared(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return an array of zeros in memory that this process shares with the ones forked from it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, count=int(np.prod(shape))).reshape(shape)
