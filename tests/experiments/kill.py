"""Runs killed at random moments, and in the middle of a save: does each one, gone on with, end in the same bytes?

    python -m tests.experiments.kill [--runs 300] [--seed 1]

Every run trains a small model, saves all the time, and is killed with SIGKILL up to three times: at a random moment, or between two of the calls by which
a file is saved. Then it is gone on with, by the same command, until it is done. Both of its files must be, byte for byte, those of a run that was
never disturbed. POSIX only.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charlstm import checkpoint
from charlstm.cli import main as charlstm

TRAIN = [
    "--steps", "300", "--hidden", "16", "--layers", "1", "--dropout", "0.2", "--batch", "16", "--seq", "8",
    "--eval-every", "25", "--save-every", "0", "--if-exists", "resume", "--display", "none", "--threads", "2",
]  # fmt: skip
FILES = ("text.npz", "text.best.npz")
MOST_KILLS = 3


def killed_at_call(number: int) -> None:
    """Train in this process, and die right before the call of this number among all that saving makes."""
    calls = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return made

    class Counting:
        """The os module, its calls counted."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(os, name)
            return counted(found) if name in ("fsync", "open", "close") else found

    checkpoint.os = Counting()  # type: ignore[assignment]
    checkpoint.open = counted(open)  # type: ignore[attr-defined]
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    checkpoint.np.savez = counted(checkpoint.np.savez)  # type: ignore[method-assign]
    sys.exit(charlstm(train(Path.cwd())))


def train(folder: Path) -> list[str]:
    """The command; all runs read one text, because a file holds where its text lies."""
    return ["train", str(folder.resolve().parent / "text.txt"), *TRAIN]


def start(folder: Path, call: int = 0) -> subprocess.Popen[bytes]:
    """Train in a process of its own, which dies at a call if there is one."""
    words = ["tests.experiments.kill", "--call", str(call)] if call else ["charlstm", *train(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def end_state(folder: Path) -> list[bytes]:
    """Both files of a run."""
    return [(folder / "checkpoints" / name).read_bytes() for name in FILES]


def disturb(folder: Path, rng: random.Random, undisturbed_s: float) -> int:
    """Kill a run up to `MOST_KILLS` times, then let it end; returns how often it was killed."""
    kills = 0
    for _ in range(rng.randint(1, MOST_KILLS)):
        call = rng.randint(1, 60) if rng.random() < 0.5 else 0
        process = start(folder, call)
        try:
            process.wait(None if call else rng.uniform(0.2, undisturbed_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return kills
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"a run ended with {process.returncode}")
        kills += 1
    if start(folder).wait():
        sys.exit("a run that was gone on with did not end well")
    return kills


def main() -> None:
    """Disturb them, compare, count, and end with status 1 if any differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.kill")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--call", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        killed_at_call(options.call)
    rng, same, kills = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        text = "".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000))
        (Path(name) / "text.txt").write_text(text, encoding="utf-8")
        folders = [Path(name) / str(number) for number in range(options.runs + 1)]
        for folder in folders:
            folder.mkdir()
        before = time.monotonic()
        start(folders[0]).wait()
        undisturbed_s, expected = time.monotonic() - before, end_state(folders[0])
        for count, folder in enumerate(folders[1:], start=1):
            kills += disturb(folder, rng, undisturbed_s)
            equal = end_state(folder) == expected
            same += equal
            if not equal:
                print(f"run {count} ended in other bytes", flush=True)
            if count % 10 == 0:
                print(
                    f"{same} of {count} runs, killed {kills} times, ended in the same bytes",
                    file=sys.stderr,
                    flush=True,
                )
    print(f"{same} of {options.runs} runs, killed {kills} times, ended in the same bytes as the undisturbed one")
    sys.exit(same < options.runs)


if __name__ == "__main__":
    main()
