"""The parts of a window computed side by side, by processes that share their arrays, with single-threaded matrix products each.

All cores are kept busy, with elementwise work too, and meet once a window. Threads inside the products meet at each of them, which
costs more, and comes to a halt where another process wants the same cores. Threads that take a part each wait for the
interpreter's lock a few thousand times a window. So on Linux the parts are processes.
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
"""`side_by_side` hands over what a worker made after so many steps."""

T = TypeVar("T")

FORKS = sys.platform == "linux"
"""Elsewhere a process can't be copied, or not safely (macOS); there the parts are done by threads, with the same results."""


class Desk:
    """Where a part of the streams is computed: what goes in and what comes out, in memory that may be shared."""

    def __init__(self, params: Arrays, config: ModelConfig, T: int, N: int, share: float) -> None:
        """A desk for windows of T steps and N streams, which count for `share` of the loss of all."""
        dtype = params["out.b"].dtype
        self.params, self.config, self.share = params, config, share
        self.work = model.Workspace.empty(config, T, N, dtype)
        self.ids = shared((2, T, N), np.intp)  # inputs and targets
        self.before, self.after = (
            model.State(*(shared((config.layers, N, config.hidden), dtype) for _ in "hc")) for _ in range(2)
        )
        self.loss = shared((1,), np.float64)
        self.seed = shared((1,), np.int64)  # of the dropout masks; -1 for none
        self.grads = {name: shared(p.shape, p.dtype) for name, p in params.items()}

    def compute(self) -> None:
        """`model.loss_and_gradients` of what lies on the desk."""
        rng = None if self.seed[0] < 0 else np.random.default_rng(int(self.seed[0]))
        self.loss[0], grads, after = model.loss_and_gradients(
            self.params, self.config, self.ids[0], self.ids[1], self.before, self.work, rng, self.share
        )
        for name, g in grads.items():
            self.grads[name][...] = g
        self.after.h[...], self.after.c[...] = after.h, after.c


class Team:
    """Desks for all parts of the streams, and who sits at them; close it, or use it as a context manager.

    The first desk is computed by the caller, the others by worker processes, where there are cores for them, or else by the crew.
    A worker that is lost (killed for want of memory, say) is not missed: its desk is computed by the caller from then on.
    """

    def __init__(self, crew: Crew, params: Arrays, config: ModelConfig, T: int, N: int, parts: int) -> None:
        """Set up desks for windows of T steps and N streams; `move_to_shared_memory` must have moved the parameters before."""
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
        """As `model.loss_and_gradients` for all streams, with a seed of the dropout masks for each part.

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
        """The loss alone that these parameters have on a window, without dropout."""

        def job(k: int) -> float:
            part, desk = self.slices[k], self.desks[k]
            before = model.State(state.h[:, part], state.c[:, part])
            logits, _ = model.forward(params, desk.config, inputs[:, part], before, desk.work)
            return desk.share * float(nats(logits, targets[:, part].reshape(-1)).mean())

        return sum(self.crew.map(job, len(self.desks)))

    def saturated(self) -> float:
        """`model.saturated` of the first part, after its last window."""
        return model.saturated(self.desks[0].work)


class _Worker:
    """A copy of this process that computes one desk whenever it is told to, and ends when this one does.

    It learns of that because the line between them then has an end: which is why it must not keep a copy of its other end, nor of those
    of the workers before it.
    """

    def __init__(self, desk: Desk, earlier: Iterable[socket.socket]) -> None:
        self.line, theirs = socket.socketpair()
        self.pid = _fork(lambda: _serve(desk, theirs, [self.line, *earlier]))
        theirs.close()

    def begin(self) -> None:
        """Tell the worker that its desk is laid out; whether it heard shows in `finished`."""
        with contextlib.suppress(OSError):
            self.line.send(b"\0")

    def finished(self) -> bool:
        """Wait until the desk is computed; False if the worker is lost."""
        try:
            return bool(self.line.recv(1))
        except OSError:
            return False

    def end(self) -> None:
        """Let the worker go."""
        self.line.close()
        _end(self.pid)


def _serve(desk: Desk, line: socket.socket, others: Iterable[socket.socket]) -> None:
    for other in others:
        other.close()
    while line.recv(1):
        desk.compute()
        line.send(b"\0")


def side_by_side(job: Callable[[int], Iterator[list[T]]], sizes: Sequence[int], nothing: T) -> Iterator[list[T]]:
    """Join what job(0), job(1), … yield, `sizes` items each at a time, step by step; what has ended goes on with `nothing`.

    The first job is done here, each of the others by a process of its own, in blocks; without such processes all are done here.
    """
    if not FORKS or len(sizes) == 1:
        yield from _join([job(k) for k in range(len(sizes))], sizes, nothing)
        return
    from multiprocessing import Pipe  # takes a while to import, and few need it

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
    """What a worker sent; it must not be lost half-way, because what it would have written can't be made up."""
    while True:
        try:
            block = line.recv()
        except (OSError, EOFError) as error:
            raise CharlstmError("a worker process was lost: free some memory, or take a smaller -n") from error
        if not block:
            return
        yield from block


def _fork(work: Callable[[], None]) -> int:
    """Let a copy of this process do some work and end; signals to stop are for the process that it works for. Returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the copy has no use for what other threads might hold
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
    """An array of zeros in memory that this process shares with the copies that are made of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, count=int(np.prod(shape))).reshape(shape)
