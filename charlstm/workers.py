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
from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.nn.loss import nats
from charlstm.nn.parallel import Crew, split
from charlstm.nn.types import Array, Arrays, Ids

FORKS = sys.platform == "linux"
"""Elsewhere a process can't be copied, or not safely (macOS); there the parts are done by threads, with the same results."""


class Desk:
    """Where a part of the streams is computed: what goes in and what comes out, in memory that may be shared."""

    def __init__(self, params: Arrays, config: ModelConfig, T: int, N: int, share: float) -> None:
        """A desk for windows of T steps and N streams, which count for `share` of the loss of all."""
        dtype = params["out.W"].dtype
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
        """For windows of T steps and N streams. The parameters are moved to shared memory, **in place** of the arrays in the dict."""
        self.crew, self.N, self.slices = crew, N, split(N, parts)
        for name, p in params.items():
            params[name] = shared(p.shape, p.dtype)
            params[name][...] = p
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the copy has no use for what other threads might hold
            self.pid = os.fork()
        if self.pid == 0:
            _work(desk, theirs, [self.line, *earlier])
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
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _work(desk: Desk, line: socket.socket, others: Iterable[socket.socket]) -> None:
    """What a worker does; never returns. Signals to stop are for the process that it works for."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for other in others:
            other.close()
        with np.errstate(all="ignore"):
            while line.recv(1):
                desk.compute()
                line.send(b"\0")
        status = 0
    finally:
        os._exit(status)


def shared(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of zeros in memory that this process shares with the copies that are made of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, count=int(np.prod(shape))).reshape(shape)
