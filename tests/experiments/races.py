"""Two commands at once on one run, started together or through slow pipes: is a saved step ever lost without a word?

    python -m tests.experiments.races [--pairs 50] [--seed 1]

Each pair is `train` with two of `--if-exists resume|overwrite|fail`, on a run that exists or not. The second command begins together with the first, or
reads its text through a pipe that is closed while the first trains, or after it has ended. Meanwhile the file is read again and again: its step may go
down only if a command that may overwrite said that it did. In the end the file must be whole, and hold what the last command that succeeded reached.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from charlstm.errors import CheckpointError
from charlstm.storage import checkpoint

TEXT = "the cat sat on the mat, and the dog ate it all.\n" * 40
SMALL = [
    "--hidden",
    "6",
    "--batch",
    "2",
    "--seq",
    "8",
    "--preview-every",
    "0",
    "--display",
    "lines",
    "--threads",
    "1",
    "--save-every",
    "0",
]
HOW = ("together", "pipe, closed meanwhile", "pipe, closed afterwards")


@dataclass
class Pair:
    """What was seen of two commands."""

    steps: list[int] = field(default_factory=list)  # of the file, whenever it was read
    damaged: str = ""


def start(folder: Path, if_exists: str, steps: int, source: str = "text.txt") -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "charlstm",
        "train",
        source,
        "--name",
        "r",
        "--steps",
        str(steps),
        "--if-exists",
        if_exists,
        *SMALL,
    ]
    return subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def look(path: Path, pair: Pair) -> None:
    try:
        step = checkpoint.load_run(path).step
        if not pair.steps or step != pair.steps[-1]:
            pair.steps.append(step)
    except CheckpointError as error:
        if "No such file" not in str(error):
            pair.damaged = str(error)


def race(folder: Path, modes: tuple[str, str], how: str, exists: bool, rng: np.random.Generator) -> tuple[str, str]:
    """Run a pair; what came of it, and what was broken."""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    os.mkfifo(folder / "pipe")
    path = folder / "checkpoints" / "r.npz"
    if exists:
        start(folder, "fail", 20).communicate()
    pair, targets = Pair(), (120, 60)
    look(path, pair)
    processes = [start(folder, modes[1], targets[1], "pipe" if how != "together" else "text.txt")]
    time.sleep(float(rng.random()) * 0.3)
    processes.insert(0, start(folder, modes[0], targets[0]))
    until = time.monotonic() + 120
    wait_s = float(rng.random()) * 2
    began = time.monotonic()
    fed = how == "together"
    while any(process.poll() is None for process in processes) and time.monotonic() < until:
        look(path, pair)
        ready = processes[0].poll() is not None if how.endswith("afterwards") else time.monotonic() > began + wait_s
        if not fed and ready and processes[1].poll() is None:
            with contextlib.suppress(OSError):  # nobody reads it yet, or any more
                with open(os.open(folder / "pipe", os.O_WRONLY | os.O_NONBLOCK), "w", encoding="utf-8") as pipe:
                    pipe.write(TEXT)
                fed = True
    look(path, pair)
    errors = [process.communicate()[1] for process in processes]
    status = [process.returncode for process in processes]
    broken = [pair.damaged] if pair.damaged else []
    if any(s not in (0, 1, 2) for s in status) or any("Traceback" in err for err in errors):
        broken.append(f"status {status}")
    falls = [(a, b) for a, b in itertools.pairwise(pair.steps) if b < a]
    said = [int(match.replace(",", "")) for err in errors for match in re.findall(r"saved at step ([\d,]+)", err)]
    if len(falls) > len(said):  # whoever overwrites says from where
        broken.append(f"steps fell {falls}, of which {said} was said")
    if not any(s == 0 for s in status) and not (exists and "fail" in modes):
        broken.append("none of the two trained")
    for s, err in zip(status, errors, strict=True):
        if s and err.count("charlstm: ") != 1:
            broken.append(f"not one sentence: {err[-300:]}")
    last = pair.steps[-1] if pair.steps else None
    reached = [target for target, s in zip(targets, status, strict=True) if s == 0]
    if reached and last not in (*reached, max(reached)):
        broken.append(f"ended at {last}, where {reached} were reached")
    return f"{modes[0]}+{modes[1]}: {sorted(status)}", "; ".join(broken)


def main() -> None:
    """Run them, count, and end with status 1 if a step was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.races")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    rng, outcomes, bad = np.random.default_rng(options.seed), Counter[str](), 0
    modes = ("resume", "overwrite", "fail")
    every = list(itertools.product(itertools.product(modes, modes), HOW, (True, False)))
    for number in range(options.pairs):
        both, how, exists = (
            every[number % len(every)] if options.pairs >= len(every) else every[int(rng.integers(len(every)))]
        )
        with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
            outcome, broken = race(Path(name), both, how, exists, rng)
        outcomes[outcome] += 1
        if broken:
            bad += 1
            print(
                f"pair {number}, {'+'.join(both)}, {how}, {'an old run' if exists else 'no run yet'}: {broken}",
                flush=True,
            )
    print(f"{options.pairs} pairs: {', '.join(f'{n} x {what}' for what, n in sorted(outcomes.items()))}")
    print(f"{bad} of them lost something, or said it badly")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
