"""Data-parallel training: processes that share memory compute the shards of a window, each with one BLAS thread.

All cores stay busy, in elementwise work too, and synchronize once per window. Threads inside BLAS synchronize at every
matrix product, which costs more and stalls when another process wants the same cores. Python threads, one per shard,
would wait for the GIL a few thousand times per window. So on Linux each shard has a process of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import select
import socket
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike

from charlstm.errors import CharlstmError
from charlstm.inference.evaluation import evaluate
from charlstm.nn import model, optim
from charlstm.nn.config import ModelConfig
from charlstm.nn.loss import nll
from charlstm.nn.threads import ThreadPool, split
from charlstm.nn.types import Array, Arrays, Ids
from charlstm.processes import CAN_FORK, end, fork, is_stopped
from charlstm.text.ids import TextIds

PATIENCE_S = 1.0
"""Seconds between looks at a worker that does not answer."""

Allocate = Callable[[tuple[int, ...], DTypeLike], Array]
"""Returns an array of this shape and type, in memory that processes share."""


def shared(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return an array of zeros in memory that this process shares with the ones forked from it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype, count=int(np.prod(shape))).reshape(shape)


class Shard:
    """Buffers of one shard of the streams: its inputs and results, in memory that processes can share."""

    def __init__(
        self, params: Arrays, config: ModelConfig, T: int, N: int, share: float, allocate: Allocate = shared
    ) -> None:
        """Allocate buffers for windows of T steps and N streams, whose loss has the weight `share` in the total."""
        dtype = params["out.b"].dtype
        self.params, self.config, self.T, self.N, self.share = params, config, T, N, share
        self.ids = allocate((2, T, N), np.intp)  # inputs and targets
        self.before, self.after = (
            model.State(*(allocate((config.layers, N, config.hidden), dtype) for _ in "hc")) for _ in range(2)
        )
        self.loss = allocate((1,), np.float64)
        self.seed = allocate((1,), np.int64)  # seed of the dropout masks; -1: no dropout
        self.flat_grads = allocate((sum(p.size for p in params.values()),), dtype)
        self.grads = views(self.flat_grads, params)

    @cached_property
    def work(self) -> model.Workspace:
        """Buffers of the process that computes this shard."""
        return model.Workspace.empty(self.config, self.T, self.N, self.flat_grads.dtype)

    def compute(self) -> None:
        """Run `model.loss_and_gradients` on the buffers."""
        rng = None if self.seed[0] < 0 else np.random.default_rng(int(self.seed[0]))
        self.loss[0], _, after = model.loss_and_gradients(
            self.params, self.config, self.ids[0], self.ids[1], self.before, self.work, rng, self.share, self.grads
        )
        self.after.h[...], self.after.c[...] = after.h, after.c

    def mean_nll(self, params: Arrays) -> float:
        """Return the part of these parameters' loss on the last window that is due to this shard: see `Engine.loss`."""
        zero = model.State.zero(self.config, self.N)
        logits, _ = model.forward(params, self.config, self.ids[0], zero, self.work)
        return self.share * float(nll(logits, self.ids[1].reshape(-1)).mean())

    def cell_max(self) -> float:
        """Return the largest |c| after the last window."""
        return float(np.abs(self.after.c).max())


class DataParallel:
    """The engine of one machine: computes loss and gradients of all shards in parallel; use it as a context manager.

    The caller computes the first shard and worker processes the others; with fewer cores than shards, or where
    processes can't be forked, a thread pool computes all of them. If a worker dies (for lack of memory, say), the
    caller computes its shard from then on.
    """

    sync_every = 1

    def __init__(self, pool: ThreadPool, params: Arrays, config: ModelConfig, T: int, N: int, shards: int) -> None:
        """Allocate for windows of T steps and N streams; `move_to_shared_memory` must have moved the parameters before."""
        self.pool, self.params, self.config, self.slices = pool, params, config, split(N, shards)
        sizes = [s.stop - s.start for s in self.slices]
        self.shards = [Shard(params, config, T, size, size / N) for size in sizes]
        self.workers: dict[int, _Worker] = {}
        if CAN_FORK and pool.threads >= shards:
            try:
                for k, shard in enumerate(self.shards[1:], start=1):
                    self.workers[k] = _Worker(shard, [worker.connection for worker in self.workers.values()])
            except CharlstmError:
                self.__exit__()
                raise

    def __enter__(self) -> DataParallel:
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
        for shard, part, seed in zip(
            self.shards, self.slices, seeds or itertools.repeat(-1, len(self.shards)), strict=True
        ):
            shard.ids[0], shard.ids[1] = inputs[:, part], targets[:, part]
            shard.before.h[...], shard.before.c[...] = state.h[:, part], state.c[:, part]
            shard.seed[0] = seed
        self._compute()
        first, *others = self.shards
        for other in others:
            first.flat_grads += other.flat_grads
        after = model.State(
            np.concatenate([shard.after.h for shard in self.shards], axis=1),
            np.concatenate([shard.after.c for shard in self.shards], axis=1),
        )
        return float(sum(shard.loss[0] for shard in self.shards)), first.grads, after

    def _compute(self) -> None:
        if not self.workers:
            self.pool.map(lambda k: self.shards[k].compute(), len(self.shards))
            return
        for worker in self.workers.values():
            worker.begin()
        with np.errstate(all="ignore"):
            for k, shard in enumerate(self.shards):
                if k not in self.workers or not self.workers[k].finished():
                    shard.compute()

    def clip(self, limit: float) -> float:
        """Clip the gradients: see `Engine`."""
        return optim.clip_global_norm(self.shards[0].grads, limit)

    def update(self, optimizer: str, slots: Arrays, lr: float, t: int, synchronize: bool = True) -> float:
        """Update the parameters: see `Engine`."""
        return optim.UPDATES[optimizer](self.params, self.shards[0].grads, slots, lr, t, self.pool)

    def restored(self) -> None:
        """Do nothing: the workers share the parameters."""

    def loss(self, params: Arrays) -> float:
        """Return the loss of other parameters on the last window: see `Engine`."""
        return sum(self.pool.map(lambda k: self.shards[k].mean_nll(params), len(self.shards)))

    def held_out_loss(self, params: Arrays, ids: TextIds) -> float:
        """Return the loss on a whole text: see `Engine`."""
        return evaluate(params, self.config, ids, self.pool, len(self.shards))

    def cell_max(self) -> float:
        """Return the largest |c| after the last window."""
        return float(np.max([shard.cell_max() for shard in self.shards]))

    def saturated(self) -> float:
        """Return `model.saturated` of the first shard after its last window."""
        return model.saturated(self.shards[0].work)


class _Worker:
    """A forked process that computes one shard on request, and exits when its parent does.

    It detects that because its socket is closed at the other end, so it must not keep copies of the parent's ends of
    its own socket or of those of earlier workers.
    """

    def __init__(self, shard: Shard, earlier: Iterable[socket.socket]) -> None:
        self.connection, theirs = socket.socketpair()
        try:
            self.pid = fork(lambda: _serve(shard, theirs, [self.connection, *earlier]))
        except CharlstmError:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def begin(self) -> None:
        """Start computing the buffers; `finished` reports a worker that has died."""
        with contextlib.suppress(OSError):
            self.connection.send(b"\0")

    def finished(self) -> bool:
        """Wait until the shard is computed; return False if the worker has died.

        A worker that stays stopped, as by SIGSTOP, is killed: nobody else would wake it.
        """
        seen_stopped = False
        try:
            ready = select.poll()  # select() takes no handle above 1,023
            ready.register(self.connection, select.POLLIN)
            while not ready.poll(1000 * PATIENCE_S):
                stopped = is_stopped(self.pid)
                if stopped and seen_stopped:
                    self.end()
                    return False
                seen_stopped = stopped
            return bool(self.connection.recv(1))
        except (OSError, ValueError):  # closed
            return False

    def end(self) -> None:
        """Terminate the worker."""
        self.connection.close()
        end(self.pid)


def _serve(shard: Shard, connection: socket.socket, others: Iterable[socket.socket]) -> None:
    for other in others:
        other.close()
    with np.errstate(all="ignore"):
        while connection.recv(1):
            shard.compute()
            connection.send(b"\0")


def move_to_shared_memory(arrays: Arrays) -> None:
    """Replace every array in the dict by a copy in shared memory, so that worker processes see what is written to it later."""
    for name, a in arrays.items():
        arrays[name] = shared(a.shape, a.dtype)
        arrays[name][...] = a


def views(flat: Array, arrays: Arrays) -> Arrays:
    """Return views of one flat array with the names and shapes of these arrays."""
    parts = np.split(flat, np.cumsum([a.size for a in arrays.values()])[:-1])
    return {name: part.reshape(a.shape) for (name, a), part in zip(arrays.items(), parts, strict=True)}
