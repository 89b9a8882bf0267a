"""How fast many ranks would train: predicted from the step of one rank, measured here, and the cost of what hosts exchange.

    python -m tests.benchmarks.clusters [--per-host 8] [--streams 16]

A step of R ranks on H hosts takes::

    shard + update / (ranks per host) + 2 (H - 1) / H * bytes / bandwidth + 2 (H - 1) * latency + commands

`shard` and `update` are measured with one core. `bytes` are those of the gradients, of which each host sends and receives two
parts of (H - 1) / H; with ``--sync-every K``, those of parameters and optimizer slots, and only every K steps. The commands of a step
are four broadcasts, one of which carries the window of all streams. The model ignores that the ranks of a host share its memory;
compare `tests.benchmarks.ranks`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.mpi import ROOT

SIZES = ((1, 256), (2, 256), (2, 512))
"""(layers, hidden)."""
LINKS = (("1 Gbit/s", 1e9 / 8, 1e-4), ("10 Gbit/s", 1e10 / 8, 3e-5), ("100 Gbit/s", 1e11 / 8, 3e-6))
"""Name, bytes per second, seconds of latency."""
RANKS = (1, 2, 4, 8, 16, 32, 64)
SEQ = 64
COMMANDS = 4


@dataclass(frozen=True)
class Costs:
    """What a step of one rank takes on one core."""

    shard_s: float
    update_s: float
    size: int  # of the gradients, in bytes
    slots: int  # of the optimizer, in bytes


def predicted_s(
    costs: Costs, ranks: int, per_host: int, link: tuple[str, float, float], streams: int, sync_every: int = 1
) -> float:
    """Return the seconds of a step."""
    hosts, (_, bandwidth, latency_s) = math.ceil(ranks / per_host), link
    own = costs.shard_s + costs.update_s / min(ranks, per_host)
    if hosts == 1:
        return own
    rounds = math.ceil(math.log2(hosts))
    sizes = [costs.size] if sync_every == 1 else [costs.size, costs.slots]
    exchange = (
        sum(2 * (hosts - 1) / hosts * size / bandwidth + 2 * (hosts - 1) * latency_s for size in sizes) / sync_every
    )
    window = 2 * 4 * SEQ * streams * ranks / bandwidth
    return own + exchange + rounds * (COMMANDS * latency_s + window)


def measure(layers: int, hidden: int, streams: int, seconds: float) -> None:
    """Print the `Costs`."""
    from charlstm import blas

    blas.prepare()
    import numpy as np

    from charlstm.nn import model, optim
    from charlstm.nn.config import ModelConfig
    from tests.benchmarks.workers import V

    config = ModelConfig(V, residual=layers > 1, multiplicative=True, hidden=hidden, layers=layers)
    rng = np.random.default_rng(1)
    params = model.init(config, rng)
    slots = optim.empty_slots("muon", params, model.hidden_matrices(config))
    buffers, state = model.Workspace.empty(config, SEQ, streams), model.State.zero(config, streams)
    ids = rng.integers(0, V, (SEQ + 1, streams))
    grads: dict[str, np.ndarray] = {}

    def shard() -> None:
        _, found, _ = model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, buffers)
        grads.update(found)

    def update() -> None:
        optim.muon(params, {name: g.copy() for name, g in grads.items()}, slots, 1e-9, 1)

    times = [_cpu_s(work, seconds) for work in (shard, update)]
    print(json.dumps([*times, 4 * model.parameter_count(config), sum(slot.nbytes for slot in slots.values())]))


def measured(layers: int, hidden: int, streams: int, seconds: float) -> Costs:
    """Return what `measure` prints, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.clusters", "--measure", str(layers), str(hidden)]
    command += ["--streams", str(streams), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    return Costs(*json.loads(done.stdout))


def _cpu_s(work: Callable[[], None], seconds: float) -> float:
    """Median CPU time of a call, which other programs hardly disturb; nothing here uses more than one thread."""
    work()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return statistics.median(times)


def main() -> None:
    """Measure each size in a process of its own, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clusters", description=__doc__.split("\n")[0])
    parser.add_argument("--per-host", type=int, default=8, help="ranks per host")
    parser.add_argument("--streams", type=int, default=16, help="streams per rank")
    parser.add_argument("--sync-every", type=int, default=8, help="of a second row for the slowest network")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--measure", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.streams, options.seconds)
        return
    print(f"| model | link | {' | '.join(f'{ranks}' for ranks in RANKS)} |")
    print(f"|---|---|{'---|' * len(RANKS)}")
    for layers, hidden in SIZES:
        costs = measured(layers, hidden, options.streams, options.seconds)
        alone = predicted_s(costs, 1, options.per_host, LINKS[0], options.streams)
        name = (
            f"{layers}x{hidden}, {costs.size / 1e6:.1f} MB, {1000 * costs.shard_s:.0f} + {1000 * costs.update_s:.0f} ms"
        )
        for link, sync_every in ((LINKS[0], 1), (LINKS[0], options.sync_every), *((link, 1) for link in LINKS[1:])):
            steps = [predicted_s(costs, ranks, options.per_host, link, options.streams, sync_every) for ranks in RANKS]
            row = [f"{ranks * alone / step:.1f}" for ranks, step in zip(RANKS, steps, strict=True)]
            how = f", `--sync-every {sync_every}`" if sync_every > 1 else ""
            print(f"| {name} | {link[0]}{how} | {' | '.join(row)} |", flush=True)
            name = ""


if __name__ == "__main__":
    main()
