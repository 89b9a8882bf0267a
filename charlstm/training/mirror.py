"""The engine of several ranks: exact data parallelism within a host by shared memory, between hosts by MPI.

The ranks of a host share parameters, optimizer slots and gradients in one block of memory, so nothing is sent there. Each
rank computes its shards, sums a slice of the gradients of all shards, and updates its part of the parameters. Between
hosts, the first rank of each exchanges gradients, and every host makes the same update.

Sums have a fixed order: the shards of a host in ascending order, then the hosts. On one host that is the order of
`DataParallel`, and the result has the same bytes.

With `TrainConfig.sync_every`, the plan is `local`: each host updates its parameters from the gradients of its own streams
(local SGD; Stich 2019), and parameters and slots are averaged when rank 0 says so. In between, the hosts send each other
only the characters of a window and a few metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from charlstm.inference.evaluation import group_nats, groups_of
from charlstm.nn import model, optim
from charlstm.nn.config import ModelConfig
from charlstm.nn.threads import split
from charlstm.nn.types import Array
from charlstm.training.data_parallel import Allocate, Shard, views
from charlstm.training.ranks import Command, World
from charlstm.training.shared_memory import Arena, shared_block


class Buffers:
    """What the ranks of one host share."""

    def __init__(
        self, plan: dict[str, Any], mine: list[int], slices: list[slice], streams: int, allocate: Allocate
    ) -> None:
        """Allocate for the shards `mine` of this host; `slices` are the streams of each shard.

        The gradients are those of the mean over this number of `streams`.
        """
        config, T, N = ModelConfig(**plan["shape"]), plan["T"], plan["N"]
        shapes = model.shapes(config)
        names = optim.slot_names(plan["optimizer"], shapes, model.hidden_matrices(config))
        dtype = np.dtype(plan["dtype"])
        self.flat_params = allocate((model.parameter_count(config),), dtype)
        like = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, shape in shapes.items()}
        self.params = views(self.flat_params, like)
        slots = {slot: like[name] for slot, name in names.items()}
        self.flat_slots = allocate((sum(a.size for a in slots.values()),), dtype)
        self.slots = views(self.flat_slots, slots) if slots else {}
        self.shards = {
            k: Shard(
                self.params,
                config,
                T,
                slices[k].stop - slices[k].start,
                (slices[k].stop - slices[k].start) / streams,
                allocate,
            )
            for k in mine
        }
        first = next(iter(self.shards.values()), None)
        self.flat_grads = first.flat_grads if first else allocate(self.flat_params.shape, dtype)
        self.grads = first.grads if first else views(self.flat_grads, like)
        self.ids = allocate((2, T, N), np.int32)
        self.seeds = allocate((len(slices),), np.int64)
        self.forget = allocate((N,), np.bool_)
        self.state = allocate((2, config.layers, N, config.hidden), dtype)
        self.held_out = allocate((plan["val_chars"],), np.dtype(plan["val_dtype"]))
        self.metrics = allocate((len(slices), 4), np.float64)  # loss, cell_max, saturated, norm if local
        self.results = allocate((1 + 8 * len(model.hidden_matrices(config)),), np.float64)


class Mirror:
    """One rank's part of the work. Rank 0 and the others call the same methods at the same time."""

    def __init__(self, world: World, plan: dict[str, Any]) -> None:
        """Allocate for a plan, on all ranks."""
        self.world, self.plan = world, plan
        self.config, self.count = ModelConfig(**plan["shape"]), plan["shards"]
        self.slices = split(plan["N"], self.count)
        owners = [rank for rank, part in enumerate(split(self.count, world.size)) for _ in range(part.start, part.stop)]
        self.homes = [int(world.host_of[rank]) for rank in owners]  # first rank of the host of each shard
        here = [k for k, home in enumerate(self.homes) if home == world.host_of[world.rank]]
        streams = sum(self.slices[k].stop - self.slices[k].start for k in here)
        self.local: bool = plan["local"]
        self.weight = streams / plan["N"] if self.local else 1.0  # of this host in means over all
        build = partial(Buffers, plan, here, self.slices, max(1, streams) if self.local else plan["N"])
        counter = Arena()
        build(counter.allocate)
        self.buffers = build(Arena(shared_block(world, counter.used)).allocate)
        self.shards = self.buffers.shards
        self.own = [k for k, owner in enumerate(owners) if owner == world.rank]
        self.slice = split(self.buffers.flat_params.size, world.host.size)[world.host.rank]

    # -- commands

    def _receive(self, *arrays: Array) -> None:
        """Copy arrays of rank 0 to the other hosts, whose ranks wait for them; on rank 0's host they are there."""
        if self.world.hosts > 1:
            for array in arrays:
                self.world.to_hosts(array)
            self.world.barrier()

    def restore(self) -> None:
        """Take over the parameters and slots of rank 0."""
        self._receive(self.buffers.flat_params, self.buffers.flat_slots)

    def compute(self, fresh: float, dropout: float) -> None:
        """Compute loss and gradients; `fresh` says that rank 0 has given the state before the window."""
        b = self.buffers
        self._receive(b.ids, b.seeds, b.forget, *([b.state] if fresh else []))
        keep = ~b.forget[:, None]
        for k in self.own:
            shard, part = self.shards[k], self.slices[k]
            shard.ids[...] = b.ids[:, :, part]
            shard.seed[0] = b.seeds[k] if dropout else -1
            if fresh:
                shard.before.h[...], shard.before.c[...] = b.state[0][:, part], b.state[1][:, part]
            else:
                np.multiply(shard.after.h, keep[part], out=shard.before.h)
                np.multiply(shard.after.c, keep[part], out=shard.before.c)
            shard.compute()
            saturated = model.saturated(shard.work) if k == 0 else 0.0
            b.metrics[k] = self.weight * shard.loss[0], shard.cell_max(), saturated, 0.0
        self.world.barrier()
        self._sum()
        self._share_metrics()

    def _sum(self) -> None:
        """Sum the gradients of all shards into `Buffers.flat_grads` of every host, or only those of its own shards."""
        b = self.buffers
        total = b.flat_grads[self.slice]
        if not self.shards:
            total.fill(0)
        for shard in list(self.shards.values())[1:]:
            total += shard.flat_grads[self.slice]
        self.world.barrier()
        if self.local:
            if self.world.host.rank == 0 and self.shards:
                b.metrics[next(iter(self.shards)), 3] = optim.norm(b.grads)
        elif self.world.hosts > 1:
            if self.world.host.rank == 0:
                self._exchange(b.flat_grads)
            self.world.barrier()

    def _exchange(self, flat: Array) -> None:
        """Replace an array by the sum of those of all hosts, in their order.

        Each host sums one part and sends it to the others, which moves as much as the best algorithms of MPI, whose
        order of summation may vary.
        """
        world, place = self.world, self.world.leaders.rank
        edges = split(flat.size, world.hosts)
        counts = [part.stop - part.start for part in edges]
        starts = [part.start for part in edges]
        own = counts[place]
        parts = np.empty((world.hosts, own), flat.dtype)
        kind = world.mpi.Datatype.fromcode(flat.dtype.char)
        world.wait(
            world.leaders.Ialltoallv(
                [flat, counts, starts, kind], [parts, [own] * world.hosts, [own * k for k in range(world.hosts)], kind]
            )
        )
        total = parts[0]
        for part in parts[1:]:
            total += part
        world.wait(world.leaders.Iallgatherv([total, own, kind], [flat, counts, starts, kind]))

    def _share_metrics(self) -> None:
        """Give rank 0 the metrics of the shards of other hosts."""
        world, metrics = self.world, self.buffers.metrics
        if world.hosts == 1 or world.host.rank:
            return
        here = world.host_of[world.rank]
        known = np.where(np.array(self.homes)[:, None] == here, metrics, 0.0)
        total = np.empty_like(known)
        world.wait(world.leaders.Ireduce(known, total if world.rank == 0 else None))
        if world.rank == 0:
            metrics[...] = total

    def update(self, lr: float, t: float, scale: float, limit: float, synchronize: float) -> float:
        """Clip the gradients on the other hosts as rank 0 has, and update the parameters; return the norm of the change."""
        b, world = self.buffers, self.world
        if world.host.rank == 0 and world.rank:
            if self.local:  # they are this host's own
                optim.clip_global_norm(b.grads, limit)
            elif scale != 1:
                b.flat_grads *= scale
        self._receive()
        rule, alone = optim.UPDATES[self.plan["optimizer"]], self.plan["optimizer"] != "muon"
        changed = 0.0
        if world.host.rank == 0 or not alone:  # the others have nothing to share
            changed = rule(b.params, b.grads, b.slots, lr, int(t), self)
        if self.local:
            if synchronize:
                self._average(b.flat_params, b.flat_slots)
        elif world.mixed:  # hosts that round differently would drift apart
            self._receive(b.flat_params)
        return changed  # the next command begins with a wait for the first rank of each host

    def _average(self, *arrays: Array) -> None:
        """Replace arrays by their mean over the hosts, each with the weight of its streams."""
        if self.world.host.rank == 0:
            for array in arrays:
                if array.size:
                    array *= self.weight
                    self._exchange(array)
        self.world.barrier()

    def share(self, job: Callable[[int], float], jobs: int) -> list[float]:
        """Run jobs on the ranks of this host: see `nn.threads.Pool`."""
        results = self.buffers.results
        for k in range(self.world.host.rank, jobs, self.world.host.size):
            results[k] = job(k)
        self.world.barrier()
        return [float(result) for result in results[:jobs]]

    def loss(self) -> None:
        """Compute the loss of the parameters that rank 0 has copied over the gradients."""
        b = self.buffers
        self._receive(b.flat_grads)
        for k in self.own:
            b.metrics[k, 0] = self.weight * self.shards[k].mean_nll(b.grads)
        self.world.barrier()
        self._share_metrics()

    def evaluate(self) -> None:
        """Compute the total loss of each group of streams of the held-out text, by the parameters that rank 0 has copied over the gradients."""
        b = self.buffers
        self._receive(b.flat_grads)
        self._receive(b.held_out)
        groups = groups_of(b.held_out, self.count)
        for k in self.own:
            b.metrics[k, 0] = group_nats(b.grads, self.config, b.held_out, k, groups) if k < groups else 0.0
        self.world.barrier()
        self._share_metrics()

    def gather(self) -> model.State | None:
        """Return the state after the last window, on rank 0."""
        self.world.barrier()
        world, leads = self.world, self.world.host.rank == 0
        whole = np.empty_like(self.buffers.state)
        for k, part in enumerate(self.slices):
            if k in self.shards and (world.rank == 0 or leads):
                moved = np.stack([self.shards[k].after.h, self.shards[k].after.c])
                if world.rank:
                    world.wait(world.comm.Isend(moved, 0, tag=k))
            elif world.rank == 0:
                moved = np.empty_like(whole[:, :, part])
                world.wait(world.comm.Irecv(moved, self.homes[k], tag=k))
            if world.rank == 0:
                whole[:, :, part] = moved
        return model.State(*whole) if world.rank == 0 else None


def serve(world: World) -> None:
    """Work for the engine that rank 0 has opened, until it closes it."""
    mirror = Mirror(world, world.send_plan({}))
    mirror.restore()
    while True:
        command, numbers = world.receive()
        if command == Command.COMPUTE:
            mirror.compute(*numbers[:2])
        elif command == Command.UPDATE:
            mirror.update(*numbers[:5])
        elif command == Command.RESTORE:
            mirror.restore()
        elif command == Command.LOSS:
            mirror.loss()
        elif command == Command.EVALUATE:
            mirror.evaluate()
        elif command == Command.GATHER:
            mirror.gather()
        else:
            return
