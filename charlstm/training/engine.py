"""What computes a step: the joint between the training loop and the processes, threads or hosts that work for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from charlstm import launcher
from charlstm.nn import model
from charlstm.nn.threads import ThreadPool
from charlstm.nn.types import Arrays, Ids
from charlstm.text.ids import TextIds
from charlstm.training.data_parallel import DataParallel, move_to_shared_memory
from charlstm.training.state import TrainState


class Engine(Protocol):
    """Computes on the parameters of a run. All methods but `loss_and_gradients` refer to its last call."""

    sync_every: int
    """Steps between two of which all hosts have the same parameters; 1 on one host."""

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: model.State, seeds: Iterable[int] | None = None
    ) -> tuple[float, Arrays, model.State]:
        """Compute mean loss, gradients and final state of all streams, as `model.loss_and_gradients` does.

        Args:
            inputs: (T, N).
            targets: (T, N).
            state: of all streams, before the window.
            seeds: seeds of the dropout masks, one per shard; None: no dropout.
        """

    def clip(self, limit: float) -> float:
        """Clip the gradients and return their norm before, as `optim.clip_global_norm` does."""

    def update(self, optimizer: str, slots: Arrays, lr: float, t: int, synchronize: bool) -> float:
        """Update the parameters from the gradients, which are overwritten; return the norm of the change.

        Args:
            optimizer: a key of `optim.UPDATES`.
            slots: the optimizer's, updated too.
            lr: learning rate.
            t: number of the step, from 1.
            synchronize: whether hosts that take steps of their own average parameters and slots afterwards.
        """

    def restored(self) -> None:
        """Take note that the caller has changed parameters and slots."""

    def loss(self, params: Arrays) -> float:
        """Return the mean loss of some parameters on the last window, from a zero state and without dropout.

        It overwrites the gradients.
        """

    def held_out_loss(self, params: Arrays, ids: TextIds) -> float:
        """Return the mean loss of some parameters on a whole text, as `evaluation.evaluate` does.

        It overwrites the gradients.
        """

    def cell_max(self) -> float:
        """Return the largest |c| after the window."""

    def saturated(self) -> float:
        """Return `model.saturated` of the first shard."""


@contextlib.contextmanager
def open_engine(state: TrainState, val_chars: int, threads: int) -> Iterator[Engine]:
    """Open the engine for a run: the ranks of this job if it has several, otherwise the cores of this machine."""
    config = state.config
    if launcher.ranks > 1:
        from charlstm.training import rank_parallel  # needs mpi4py

        with rank_parallel.engine(state, val_chars) as engine:
            yield engine
        return
    move_to_shared_memory(state.params)
    with (
        ThreadPool(threads) as pool,
        DataParallel(pool, state.params, state.shape, config.seq, config.batch, config.shards) as local,
    ):
        yield local
