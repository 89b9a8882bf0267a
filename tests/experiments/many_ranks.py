"""What batch, learning rate or interval between averages suits many ranks: the loss at equal predicted time.

    python -m tests.experiments.many_ranks TEXT --ranks 8 --steps 1000 "streams=16" "streams=16 lr=0.05" "streams=32"
    python -m tests.experiments.many_ranks TEXT --ranks 4 --per-host 1 --steps 500 "streams=16" "streams=16 every=8"

A variant is a list of NAME=VALUE: `streams` per rank; `lr`, the peak learning rate; `every`, how many steps each host takes alone
before the parameters of all are averaged (1: gradients are summed at every step); `outer`, the Nesterov momentum of
the averages' change, and `rate`, its rate (DiLoCo, Douillard et al. 2023). The slots of an optimizer are averaged as well, so that no
host has anything that a save of the first one lacks, which costs twice the traffic; with `slots=False` they stay on their host.

`--steps` are those of the first variant. The others get as many as fit into the same time, as `tests.benchmarks.clusters` predicts it
from the CPU time of a shard and an update, or as many with `--equal-steps`. Two runs at a time, each on one core; loss is by steps, so
no clock has a say in it. The held-out loss is that of the last `--held-out` characters, by the running average of the weights, from a
zero state.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlstm import blas

blas.prepare()

import numpy as np  # noqa: E402

from charlstm.nn import model, optim  # noqa: E402
from charlstm.nn.threads import split  # noqa: E402
from charlstm.nn.types import Arrays, Ids  # noqa: E402
from charlstm.settings import TrainConfig  # noqa: E402
from charlstm.text import corpus  # noqa: E402
from charlstm.training import loop, state  # noqa: E402
from charlstm.training.data_parallel import DataParallel  # noqa: E402
from charlstm.training.engine import open_engine  # noqa: E402
from tests.benchmarks import clusters  # noqa: E402


@dataclass(frozen=True)
class Variant:
    """What is compared."""

    streams: int = 16
    lr: float = 0.025
    every: int = 1
    outer: float = 0.0
    rate: float = 1.0
    slots: bool = True


class LocalSteps(DataParallel):
    """An engine of several hosts in one process, which take steps of their own and average their parameters, as `Mirror` does."""

    def begin(self, run: state.TrainState, hosts: int, variant: Variant) -> None:
        """Give each host a copy of the parameters and slots."""
        self.hosts, self.variant, self.sync_every = split(len(self.shards), hosts), variant, variant.every
        self.copies = [({n: p.copy() for n, p in run.params.items()}, _copy(run.slots)) for _ in self.hosts]
        self.change = {name: np.zeros_like(p) for name, p in run.params.items()}
        for part, (params, _) in zip(self.hosts, self.copies, strict=True):
            for shard in self.shards[part]:
                shard.params, shard.share = params, shard.share * len(self.hosts)

    def loss_and_gradients(
        self, inputs: Ids, targets: Ids, state: model.State, seeds: Iterable[int] | None = None
    ) -> tuple[float, Arrays, model.State]:
        """Compute those of each host, by its own parameters."""
        for shard, part in zip(self.shards, self.slices, strict=True):
            shard.ids[0], shard.ids[1] = inputs[:, part], targets[:, part]
            shard.before.h[...], shard.before.c[...], shard.seed[0] = state.h[:, part], state.c[:, part], -1
            shard.compute()
        for part in self.hosts:
            first, *others = self.shards[part]
            for other in others:
                first.flat_grads += other.flat_grads
        h, c = (np.concatenate([getattr(shard.after, n) for shard in self.shards], axis=1) for n in "hc")
        loss = sum(float(shard.loss[0]) for shard in self.shards) / len(self.hosts)
        return loss, self.shards[0].grads, model.State(h, c)

    def clip(self, limit: float) -> float:
        """Clip the gradients of each host."""
        return max(optim.clip_global_norm(self.shards[part.start].grads, limit) for part in self.hosts)

    def update(self, optimizer: str, slots: Arrays, lr: float, t: int, synchronize: bool = True) -> float:
        """Update the parameters of each host, and average them if it is time."""
        for part, (params, own) in zip(self.hosts, self.copies, strict=True):
            changed = optim.UPDATES[optimizer](params, self.shards[part.start].grads, own, lr, t, None)
        if synchronize:
            self.average()
        return changed

    def average(self) -> None:
        """Replace the parameters of the run and of each host by their mean, or go further in its direction."""
        outer, rate = self.variant.outer, self.variant.rate
        for name, p in self.params.items():
            change = np.mean([params[name] for params, _ in self.copies], axis=0) - p
            if outer:
                self.change[name] = outer * self.change[name] + change
                change = rate * (change + outer * self.change[name])
            p += change
            for params, _ in self.copies:
                params[name][...] = p
        for name in self.copies[0][1] if self.variant.slots else ():
            mean = np.mean([slots[name] for _, slots in self.copies], axis=0)
            for _, slots in self.copies:
                slots[name][...] = mean


def _copy(arrays: Arrays) -> Arrays:
    return {name: a.copy() for name, a in arrays.items()}


def engine(variant: Variant, ranks: int, per_host: int) -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """Return what opens an engine that computes what these ranks would, in place of `engine.open_engine`."""

    @contextlib.contextmanager
    def opened(run: state.TrainState, val_chars: int, threads: int) -> Iterator[Any]:
        with open_engine(run, val_chars, 1) as local:
            if variant.every > 1:
                assert isinstance(local, DataParallel)
                local.__class__ = LocalSteps
                local.begin(run, math.ceil(ranks / per_host), variant)  # type: ignore[attr-defined]
            yield local

    return opened


def learn(job: tuple[str, argparse.Namespace, Variant, int]) -> float:
    """Train once; return the held-out loss."""
    text, options, variant, steps = job
    read = corpus.read((text,), cache=None)
    layers, hidden = map(int, options.size.split("x"))
    batch = variant.streams * options.ranks
    config = TrainConfig(layers=layers, hidden=hidden, batch=batch, lr=variant.lr, val_fraction=0.0, seed=options.seed)
    run, _ = state.begin(read, config, options.ranks)
    train_ids, val_ids = read.ids[: -options.held_out], read.ids[-options.held_out :]
    run.schedule.end(steps, steps, config.batch * config.seq, len(val_ids))

    loop.open_engine = engine(variant, options.ranks, options.per_host)
    for _ in loop.train(run, train_ids, val_ids, 1):
        pass
    assert run.history[-1].val_nats is not None
    return run.history[-1].val_nats


def step_s(variant: Variant, options: argparse.Namespace, costs: clusters.Costs) -> float:
    """Return the predicted seconds of a step."""
    link = next(link for link in clusters.LINKS if link[0].startswith(f"{options.gbit} "))
    costs = costs if variant.slots else replace(costs, slots=0)
    return clusters.predicted_s(costs, options.ranks, options.per_host, link, variant.streams, variant.every)


def main() -> None:
    """Predict the times, train, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.many_ranks", description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("variants", nargs="+", metavar="VARIANT", help="NAME=VALUE …, one string a variant")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--per-host", type=int, default=8)
    parser.add_argument("--gbit", type=int, default=1, help="of the network: 1, 10 or 100")
    parser.add_argument("--size", default="1x256", help="LAYERSxHIDDEN")
    parser.add_argument("--steps", type=int, default=500, help="of the first variant")
    parser.add_argument("--equal-steps", action="store_true", help="give all variants as many steps")
    parser.add_argument("--held-out", type=int, default=200_000, help="characters")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    named = [(k, Variant(**{n: ast.literal_eval(x) for n, _, x in (w.partition("=") for w in k.split())}))
             for k in options.variants]  # fmt: skip
    layers, hidden = map(int, options.size.split("x"))
    costs = {v.streams: clusters.measured(layers, hidden, v.streams, 1.0) for _, v in named}
    times = [step_s(variant, options, costs[variant.streams]) for _, variant in named]
    jobs = []
    for (_, v), s in zip(named, times, strict=True):
        steps = options.steps if options.equal_steps else options.steps * times[0] / s
        jobs.append((str(options.text.resolve()), options, v, max(1, round(steps / v.every)) * v.every))
    print(f"| {options.ranks} ranks, {options.per_host} per host, {options.size} | batch | step | steps | loss |")
    print("|---|---|---|---|---|")
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for (name, v), s, job, nats in zip(named, times, jobs, pool.imap(learn, jobs, chunksize=1), strict=True):
            print(f"| `{name}` | {v.streams * options.ranks} | {1000 * s:.1f} ms | {job[3]} | {nats:.4f} |", flush=True)


if __name__ == "__main__":
    main()
