"""The engine of several ranks as the training loop on rank 0 sees it."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import launcher, processes
from charlstm.nn import model, optim
from charlstm.nn.types import Array, Arrays, Ids
from charlstm.text.ids import TextIds
from charlstm.training.mirror import Mirror, serve
from charlstm.training.ranks import Command, World, complain
from charlstm.training.state import TrainState

_world: World | None = None


def run(program: Callable[[], int], trains: bool = True) -> int:
    """Run a program on rank 0 while the other ranks work for it; return the exit status of this process.

    The others exit with 0, so that the launcher reports the status of rank 0.
    """
    global _world
    rank, size = launcher.started_as()
    if rank:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGTSTP", "SIGUSR1", "SIGUSR2"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)  # rank 0 decides what becomes of them
    world = _world = World(size, trains)
    if rank:
        return _serve(world)
    try:
        return program()
    finally:
        world.dismiss()


def _serve(world: World) -> int:
    """Obey rank 0 until it ends; a failure is reported to it, and ends this process at once."""
    try:
        with np.errstate(all="ignore"):
            while True:
                command, numbers = world.receive()
                if command == Command.END:
                    world.liveness.close()
                    return 0
                if command == Command.WORK:
                    world.join_in(numbers[0])
                else:
                    serve(world)
    except BaseException as error:
        what = "out of memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
        if world.liveness.failure:
            processes.leave(world.explain(world.liveness.failure))
        if not world.liveness.report(" ".join(what.split())):
            complain(f"rank {world.rank} ({socket.gethostname()}) failed: {what}")
        world.liveness.outlive()
        processes.leave(1)
    return 1


class _Kept(model.State):
    """A recurrent state that stays where it was computed until somebody looks at it."""

    def __init__(self, engine: RankParallel, forgotten: NDArray[np.bool_] | None = None) -> None:
        self.engine, self.number, self.forgotten = engine, engine.number, forgotten

    def __getattr__(self, name: str) -> Any:  # called for what is not there yet
        if name not in ("h", "c"):
            raise AttributeError(name)
        whole = self.engine.gather(self.number)
        if self.forgotten is not None:
            whole = whole.forget(self.forgotten)
        self.h, self.c = whole.h, whole.c
        return getattr(self, name)

    def forget(self, streams: Array) -> model.State:
        """Return a state that is zero in some streams: see `State.forget`."""
        return super().forget(streams) if self.forgotten is not None else _Kept(self.engine, streams)


class RankParallel:
    """The engine on rank 0: see `engine.Engine`."""

    def __init__(self, world: World, state: TrainState, val_chars: int) -> None:
        """Open it; its memory takes the place of the parameters and slots of the run."""
        self.world, config = world, state.config
        self.number, self.scale, self.limit = 0, 1.0, 0.0  # of windows computed; of the gradients, and of their norm
        self.sync_every = config.sync_every if world.hosts > 1 else 1
        plan = {
            "shape": asdict(state.shape), "T": config.seq, "N": config.batch, "shards": config.shards, "local": self.sync_every > 1,
            "optimizer": config.optimizer, "dtype": state.params["out.b"].dtype.str, "val_chars": val_chars,
            "val_dtype": np.min_scalar_type(state.shape.vocabulary - 1).str,
        }  # fmt: skip
        with world.command(Command.OPEN):
            self.mirror = Mirror(world, world.send_plan(plan))
            for target, source in (
                (self.mirror.buffers.params, state.params),
                (self.mirror.buffers.slots, state.slots),
            ):
                for name in source:
                    target[name][...] = source[name]
                    source[name] = target[name]
            self.mirror.restore()

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: model.State, seeds: Iterable[int] | None = None
    ) -> tuple[float, Arrays, model.State]:
        """Compute loss, gradients and final state: see `engine.Engine`."""
        b = self.mirror.buffers
        b.ids[0], b.ids[1] = inputs, targets
        fresh = not (isinstance(state, _Kept) and state.number == self.number)
        b.forget[...] = False
        if fresh:
            b.state[0], b.state[1] = state.h, state.c
        elif isinstance(state, _Kept) and state.forgotten is not None:
            b.forget[...] = state.forgotten
        if seeds is not None:
            b.seeds[...] = list(seeds)
        with self.world.command(Command.COMPUTE, fresh, seeds is not None):
            self.mirror.compute(fresh, seeds is not None)
        self.number += 1
        self.scale = 1.0
        return float(sum(b.metrics[:, 0].tolist())), b.grads, _Kept(self)

    def gather(self, number: int) -> model.State:
        """Return the state after the window of this number, which must be the last one."""
        if number != self.number:
            raise RuntimeError("the state of an earlier window is gone")
        with self.world.command(Command.GATHER):
            state = self.mirror.gather()
        assert state is not None
        return state

    def clip(self, limit: float) -> float:
        """Clip the gradients: see `engine.Engine`."""
        before = optim.clip_global_norm(self.mirror.buffers.grads, limit)
        self.scale = limit / before if 0 < limit < before < math.inf else 1.0
        self.limit = limit
        return float(np.max(self.mirror.buffers.metrics[:, 3], initial=before))  # the largest, if each host has its own

    def update(self, optimizer: str, slots: Arrays, lr: float, t: int, synchronize: bool = True) -> float:
        """Update the parameters: see `engine.Engine`."""
        with self.world.command(Command.UPDATE, lr, t, self.scale, self.limit, synchronize):
            return self.mirror.update(lr, t, self.scale, self.limit, synchronize)

    def restored(self) -> None:
        """Send parameters and slots to the other hosts."""
        with self.world.command(Command.RESTORE):
            self.mirror.restore()

    def loss(self, params: Arrays) -> float:
        """Return the loss of other parameters on the last window: see `engine.Engine`."""
        b = self.mirror.buffers
        self._put_in_place_of_gradients(params)
        with self.world.command(Command.LOSS):
            self.mirror.loss()
        return float(sum(b.metrics[:, 0].tolist()))

    def _put_in_place_of_gradients(self, params: Arrays) -> None:
        """Copy parameters to where the other ranks find them."""
        for name, p in params.items():
            self.mirror.buffers.grads[name][...] = p

    def held_out_loss(self, params: Arrays, ids: TextIds) -> float:
        """Return the loss on a whole text: see `engine.Engine`."""
        b = self.mirror.buffers
        self._put_in_place_of_gradients(params)
        b.held_out[...] = np.asarray(ids)
        with self.world.command(Command.EVALUATE):
            self.mirror.evaluate()
        return float(sum(b.metrics[:, 0].tolist())) / (len(ids) - 1)

    def cell_max(self) -> float:
        """Return the largest |c| after the last window."""
        return float(np.max(self.mirror.buffers.metrics[:, 1]))

    def saturated(self) -> float:
        """Return `model.saturated` of the first shard after its last window."""
        return float(self.mirror.buffers.metrics[0, 2])


@contextlib.contextmanager
def engine(state: TrainState, val_chars: int) -> Iterator[RankParallel]:
    """Open the engine of all ranks, and close it if none has failed; the run then has memory of its own again."""
    assert _world is not None
    opened = RankParallel(_world, state, val_chars)
    try:
        yield opened
    finally:
        if _world.at_rest:
            if isinstance(state.recurrent_state, _Kept):
                state.recurrent_state = model.State(state.recurrent_state.h, state.recurrent_state.c)
            for arrays in (state.params, state.slots):
                for name, a in arrays.items():
                    arrays[name] = a.copy()
            with _world.command(Command.CLOSE):
                pass
