"""Two hosts on one machine: network namespaces with a link of 1 Gbit/s between them, and a rank in each.

    python -m tests.benchmarks.link [--rate 1gbit] [--delay 0.1ms] [--rounds 3]
    python -m tests.benchmarks.link --exchange      # of gradients alone, while nothing is computed

Measures the step of two ranks, each as a host of its own, against that of one rank with half the batch, in turn, and prints the
efficiency beside what `tests.benchmarks.clusters` predicts for the same step. One rank is measured twice at the same time, because two
hosts would not share a processor and its memory, as the two ranks do here. Needs root, Linux, `ip`, `tc`, mpi4py and Open MPI 5.
The delay is added to each direction if the kernel has netem; without it, only the rate is shaped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests import mpi
from tests.benchmarks import clusters
from tests.benchmarks.ranks import measured

HOSTS = ("charlstm-a", "charlstm-b")
NETWORK = "10.99.7"
SIZES = ((1, 256), (2, 256), (1, 512))
STREAMS = 16
EXCHANGES = 15
"""How many exchanges are measured."""


def ip(*words: str, check: bool = True) -> bool:
    """Call `ip`, or a program in a namespace; return whether it worked."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.returncode == 0


@contextlib.contextmanager
def two_hosts(rate: str, delay: str) -> Iterator[list[str]]:
    """Make the namespaces and the link; yield the launcher that puts one rank in each."""
    interfaces = ("charl-a", "charl-b")
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", interfaces[0], "type", "veth", "peer", "name", interfaces[1])
        for number, (host, interface) in enumerate(zip(HOSTS, interfaces, strict=True), start=1):
            ip("link", "set", interface, "netns", host)
            inside = ("netns", "exec", host)
            ip(*inside, "ip", "addr", "add", f"{NETWORK}.{number}/24", "dev", interface)
            ip(*inside, "ip", "link", "set", interface, "up")
            ip(*inside, "ip", "link", "set", "lo", "up")
            shape = (*inside, "tc", "qdisc", "add", "dev", interface, "root")
            if not ip(*shape, "netem", "delay", delay, "rate", rate, check=False):
                print("this kernel has no netem: the link has no delay of its own", file=sys.stderr)
                ip(*shape, "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
        with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
            agent = Path(folder, "agent")
            remote = f"exec ip netns exec {HOSTS[1]} unshare -u sh -c 'hostname {HOSTS[1]}; '\"$*\""
            agent.write_text(f"#!/bin/sh\nshift\n{remote}\n")
            agent.chmod(0o755)
            net = f"{NETWORK}.0/24"
            launcher = [
                str(mpi.mpirun()), "--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "prte_if_include", net,
                "--mca", "btl_tcp_if_include", net, "--mca", "btl", "tcp,self,sm", "--mca", "pml", "ob1",
                "--host", f"{NETWORK}.1:1,{NETWORK}.2:1", "--map-by", "ppr:1:node", "--bind-to", "none", "-x", "PYTHONPATH",
            ]  # fmt: skip
            script = f'hostname {HOSTS[0]}; exec {shlex.join(launcher)} "$@"'
            yield ["ip", "netns", "exec", HOSTS[0], "unshare", "-u", "sh", "-c", script, "sh"]
    finally:
        for host in HOSTS:
            ip("netns", "del", host, check=False)


def exchange() -> None:
    """Be a rank, and print on the first how long an exchange of gradients takes."""
    import numpy as np

    from charlstm import launcher
    from charlstm.training.mirror import Mirror
    from charlstm.training.ranks import World

    world = World(launcher.started_as()[1])
    mirror = Mirror.__new__(Mirror)
    mirror.world = world
    for layers, hidden in SIZES:
        flat, times = np.ones(gradient_bytes(layers, hidden) // 4, np.float32), []
        for _ in range(EXCHANGES):
            world.wait(world.comm.Ibarrier())
            began = time.perf_counter()
            mirror._exchange(flat)
            times.append(time.perf_counter() - began)
        if world.rank == 0:
            print(
                f"{layers}x{hidden:<5} {1000 * statistics.median(times):7.1f} ms for {flat.nbytes / 1e6:.1f} MB",
                flush=True,
            )
    world.wait(world.comm.Ibarrier())
    world.liveness.close()


def main() -> None:
    """Measure, and print a row for each size."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.link", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", default="0.1ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync-every", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--exchange", action="store_true", help="measure only the exchange of gradients")
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        exchange()
        return
    if mpi.mpirun() is None or os.geteuid():
        sys.exit("this needs root, mpi4py and mpirun")
    link = ("", float(options.rate.removesuffix("gbit")) * 1e9 / 8, float(options.delay.removesuffix("ms")) / 1000)
    if options.exchange:
        environment = {**os.environ, **mpi.SETTINGS, "PYTHONPATH": str(mpi.ROOT)}
        with two_hosts(options.rate, options.delay) as launcher:
            words = [*launcher, sys.executable, "-m", "tests.benchmarks.link", "--rank"]
            subprocess.run(words, env=environment, cwd=mpi.ROOT, check=True)
        return
    print("size     sync every   1 rank      2 hosts     speed of 2 hosts (predicted)")
    with two_hosts(options.rate, options.delay) as launcher:
        for layers, hidden in SIZES:
            job: dict[str, Any] = {"layers": layers, "hidden": hidden, "seq": clusters.SEQ, "seconds": options.seconds}
            alone: list[float] = []
            both: dict[int, list[float]] = {every: [] for every in options.sync_every}
            for _ in range(options.rounds):
                with ThreadPoolExecutor(2) as pool:
                    jobs = [job | {"threads": 1, "batch": STREAMS}] * 2
                    alone += [result["s"] for result in pool.map(partial(measured, []), jobs)]
                for every, times in both.items():
                    shared = job | {"threads": 1, "batch": 2 * STREAMS, "sync_every": every}
                    times.append(measured(launcher, shared)["s"])
            one = statistics.median(alone)
            costs = replace(clusters.measured(layers, hidden, STREAMS, options.seconds), shard_s=one, update_s=0.0)
            for every, times in both.items():
                two = statistics.median(times)
                expected = clusters.predicted_s(costs, 2, 1, link, STREAMS, every)
                print(
                    f"{layers}x{hidden:<5} {every:10}  {1000 * one:7.1f} ms  {1000 * two:7.1f} ms   {2 * one / two:.2f} "
                    f"({2 * one / expected:.2f})",
                    flush=True,
                )


def gradient_bytes(layers: int, hidden: int) -> int:
    """Bytes of the gradients."""
    from charlstm.nn.config import ModelConfig
    from charlstm.nn.model import parameter_count
    from tests.benchmarks.workers import V

    return 4 * parameter_count(ModelConfig(V, multiplicative=True, hidden=hidden, layers=layers))


if __name__ == "__main__":
    main()
