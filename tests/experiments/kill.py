"""Runs killed at random moments, and in the middle of a save: does each one, gone on with, end in the same bytes?

    python -m tests.experiments.kill [--runs 300] [--seed 1]

Every run trains a small model, saves half of the time, and is killed with SIGKILL two or three times: at random moments, and right before one of
the calls into the system that a save makes. These calls are counted in an undisturbed run, and each is the last one of some process before any is
for the second time. After each kill the run is gone on with, by the same command. In the end both of its files must be, byte for byte, those of a
run that was never disturbed, and nothing else may be left in its folder. The processes are forked from this one, so that they need no time to
start; every twentieth run is ended by a process of its own kind, `python -m charlstm`. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path

from charlstm import blas

blas.prepare()

import numpy.random  # noqa: E402, F401  # here once, and not in each process

from charlstm import session  # noqa: E402
from charlstm.cli.app import main as charlstm  # noqa: E402
from tests import faults  # noqa: E402

TRAIN = [
    "--steps", "80", "--hidden", "12", "--layers", "1", "--dropout", "0.2", "--batch", "16", "--seq", "8",
    "--eval-every", "8", "--save-every", "0", "--if-exists", "resume", "--display", "none",
]  # fmt: skip
FILES = ("text.npz", "text.best.npz")
SAVING_SHARE = 1.0
OWN_KIND = 20
Gap = tuple[str, int]  # the file that is saved, and the number of the call


def train(folder: Path) -> list[str]:
    """The command; all runs read one text, because a file holds where its text lies. One in ten has a worker process beside it."""
    return [
        "train",
        str(folder.resolve().parent / "text.txt"),
        *TRAIN,
        "--threads",
        "2" if with_worker(folder) else "1",
    ]


def with_worker(folder: Path) -> bool:
    """Whether a run has two threads, and so other bytes than those that have one."""
    return folder.name.endswith("0")


def start(folder: Path, act: Callable[[Path, int, str], None] | None = None) -> int:
    """Train in a process of its own, which does something before each call of each save; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        os.chdir(folder)
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.dup2(2, 1)
        session.SAVING_SHARE = SAVING_SHARE
        with ExitStack() as stack:
            if act is not None:
                stack.enter_context(faults.in_saves(act))
            status = charlstm(train(folder))
    finally:
        os._exit(status)


def wait(pid: int, seconds: float | None = None) -> int:
    """The status that a process ends with; it is killed if that takes longer."""
    until = None if seconds is None else time.monotonic() + seconds
    while until is not None and time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    if until is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(folder: Path, gap: Gap, occurrence: int) -> int:
    """The status of a process that dies right before a call, when a file is saved for the n-th time."""
    seen = 0

    def die(path: Path, number: int, name: str) -> None:
        nonlocal seen
        seen += (path.name, number) == gap
        if seen == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    return wait(start(folder, die))


def undisturbed(folder: Path) -> list[Gap]:
    """Train once from beginning to end; returns the calls that each kind of save makes."""
    calls = folder.parent / "calls"

    def note(path: Path, number: int, name: str) -> None:
        with calls.open("a") as file:
            file.write(f"{path.name} {number}\n")

    check(wait(start(folder, note)), folder)
    counts = Counter(tuple(line.split()) for line in calls.read_text().splitlines())
    most = {name: max(counts[name, number] for name_, number in counts if name_ == name) for name in FILES}
    gaps = [(name, int(number)) for (name, number), count in counts.items() if count >= most[name] / 2]
    return sorted(gaps)


def check(status: int, folder: Path) -> None:
    """End where a process did not end well."""
    if status:
        sys.exit(f"a run ended with status {status}: {(folder / 'log').read_text()[-500:]}")


def end_state(folder: Path) -> list[bytes]:
    """Both files of a run."""
    return [(folder / "checkpoints" / name).read_bytes() for name in FILES]


def disturb(folder: Path, rng: random.Random, usual_s: float, gap: Gap) -> tuple[int, bool]:
    """Kill a run at random moments and, once, at a call; returns how often it was killed, and whether it was at the call."""
    kills, at_call, plan = 0, False, [True, False] + [False] * rng.randint(0, 1)
    for now_at_call in plan:
        if now_at_call:
            status = killed_at(folder, gap, rng.randint(1, 3))
            at_call = status == -signal.SIGKILL
        else:
            status = wait(start(folder), rng.uniform(0, usual_s))
        if status == 0:
            break
        if status != -signal.SIGKILL:
            check(status, folder)
        kills += 1
    return kills, at_call


def finish(folder: Path, *, own_kind: bool) -> None:
    """Let a run go on to its end."""
    if own_kind:
        command = [sys.executable, "-m", "charlstm", *train(folder)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        if done.returncode:
            sys.exit(done.stderr.decode())
    else:
        check(wait(start(folder)), folder)


def main(argv: list[str] | None = None) -> None:
    """Disturb them, compare, count, and end with status 1 if any differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.kill")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with redirect_stdout(StringIO()):
        charlstm(["--version"])  # imports what parsing takes
    rng, same, kills, covered = random.Random(options.seed), 0, 0, set[Gap]()
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        text = "".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000))
        (Path(name) / "text.txt").write_text(text, encoding="utf-8")
        first, alone = Path(name) / "0", Path(name) / "alone"
        first.mkdir()
        alone.mkdir()
        gaps, before = undisturbed(first), time.monotonic()
        finish(alone, own_kind=False)
        usual_s, expected = time.monotonic() - before, {True: end_state(first), False: end_state(alone)}
        left = {path.name for path in (first / "checkpoints").iterdir()}
        for count in range(1, options.runs + 1):
            folder = Path(name) / str(count)
            folder.mkdir()
            gap = rng.choice([gap for gap in gaps if gap not in covered] or gaps)
            more, at_call = disturb(folder, rng, usual_s, gap)
            kills += more
            covered |= {gap} if at_call else set()
            finish(folder, own_kind=count % OWN_KIND == 0)
            equal = (
                end_state(folder) == expected[with_worker(folder)]
                and {path.name for path in (folder / "checkpoints").iterdir()} == left
            )
            same += equal
            if not equal:
                print(f"run {count} ended in other bytes", flush=True)
            if count % 10 == 0:
                print(
                    f"{same} of {count} runs, killed {kills} times, ended in the same bytes",
                    file=sys.stderr,
                    flush=True,
                )
    print(f"{same} of {options.runs} runs, killed {kills} times, ended in the same bytes as the undisturbed one;")
    print(f"{len(covered)} of the {len(gaps)} places between two calls of a save were the end of a process")
    sys.exit(same < options.runs)


if __name__ == "__main__":
    main()
