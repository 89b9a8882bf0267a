"""What it costs to watch: the guard and its measures, and the Live screen with its previews, each as a share of training.

python -m tests.benchmarks.overhead [--rounds 9]
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from charlstm import blas

blas.prepare()

from charlstm import events  # noqa: E402
from charlstm.nn import model, optim  # noqa: E402
from charlstm.settings import TrainConfig  # noqa: E402
from charlstm.text import corpus  # noqa: E402
from charlstm.text.sources import find  # noqa: E402
from charlstm.training import guard, loop, state  # noqa: E402

STEPS = 12


def watching(rounds: int) -> float:
    """Ratio of a step's time with everything watched to that with nothing watched, at 2x128, batch 50, window 50."""
    text = corpus.read(find([]))
    config = TrainConfig(layers=2, hidden=128, batch=50, seq=50)
    run, _ = state.begin(text, config, blas.cores())
    run.schedule.end(10**9, 10**9, 2500, 1)
    stream = loop.train(run, *text.split(0.1), threads=blas.cores())
    blind = (
        mock.patch.object(model, "saturated", return_value=0.0),
        mock.patch.object(optim, "_square", return_value=1.0),
        mock.patch.object(guard.GuardRecord, "judge", return_value=None),
        mock.patch.object(guard.GuardRecord, "accept", return_value=False),
    )
    next(stream)
    ratios = []
    for _ in range(rounds):
        seeing_s = timed(stream)
        for patch in blind:
            patch.start()
        blind_s = timed(stream)
        for patch in blind:
            patch.stop()
        ratios.append(seeing_s / blind_s)
    return statistics.median(ratios)


def timed(stream: Iterator[events.Event]) -> float:
    """Median seconds of a step."""
    times = []
    for _ in range(STEPS):
        before = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def display(rounds: int, steps: int = 500) -> float:
    """Ratio of a whole run's time with the Live screen on a terminal to that with no display."""
    ratios = []
    for _ in range(rounds):
        ratios.append(whole("live", steps) / whole("none", steps))
    return statistics.median(ratios)


def whole(kind: str, steps: int) -> float:
    """Seconds of `charlstm train` on a pseudo-terminal that somebody reads."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "charlstm",
            "train",
            "--steps",
            str(steps),
            "--display",
            kind,
            "--checkpoints",
            folder,
        ]
        before = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, cwd=Path(folder), check=True)
        seconds = time.perf_counter() - before
    os.close(theirs)
    reader.join()
    os.close(ours)
    return seconds


def drain(terminal: int) -> None:
    """Read a terminal until nobody writes to it any more."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"guard and measures: {watching(10 * rounds):.4f} x a step without them (2x128, batch 50, window 50)")
    print(f"Live screen and previews: {display(rounds):.4f} x a run without them")


if __name__ == "__main__":
    main()
