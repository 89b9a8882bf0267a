"""How fast and how large the program is, beside PyTorch and beside the bare matrix products.

    python -m tests.benchmarks.speed [--quick] [--only train] [--coretype auto] [--json FILE]

Every number comes from a process of its own (`workers`). The processes of the programs that are compared run in turn, A B C A B C …;
ratios are taken round by round, and the median of these counts, so that a machine that is slow for a while is slow for all.
Where there is no PyTorch its columns stay empty. Linux only, because memory is read from /proc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.workers import CHARACTERS

ROOT = Path(__file__).resolve().parent.parent.parent
DEFAULT_SHAPES = [(1, 192, 32, 64), (1, 256, 32, 64), (2, 256, 32, 64), (1, 512, 32, 64)]
"""Sizes that charlstm chooses, with the default batch and window: layers, hidden, batch, seq."""
SHAPES = [
    (1, 100, 1, 100),
    (2, 128, 50, 50),
    (1, 128, 100, 100),
    (2, 256, 64, 64),
    (1, 512, 100, 100),
    (2, 512, 64, 64),
]
"""Layers, hidden, batch, seq."""
SAMPLED = [(2, 128, 1), (2, 512, 1), (2, 128, 64), (2, 512, 64)]
"""Layers, hidden, texts at once."""
MEGABYTE = 1_000_000

Rounds = dict[str, list[float]]
"""For each program its measurements, one a round."""
Section = tuple[str, list[str], list[list[str]], list[dict[str, Any]]]
"""Title, headings, rows in words, rows in numbers."""


@dataclass(frozen=True)
class Bench:
    """How to measure: how often, how long, in which environment, in which folder."""

    rounds: int
    seconds: float
    environment: dict[str, str]
    folder: Path

    def worker(self, name: str, **arguments: Any) -> Any:
        """What a worker prints."""
        command = [sys.executable, "-m", "tests.benchmarks.workers", name, json.dumps(arguments)]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def process(self, *words: object) -> tuple[float, float]:
        """Run Python with these words; returns seconds and the most memory it held, in MB."""
        command, before = [sys.executable, *map(str, words)], time.perf_counter()
        with tempfile.TemporaryFile() as complaint:
            child = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaint
            )  # fmt: skip
            _, status, usage = os.wait4(child.pid, 0)
            seconds, child.returncode = time.perf_counter() - before, os.waitstatus_to_exitcode(status)
            if child.returncode:
                complaint.seek(0)
                sys.exit(f"{' '.join(command)} failed:\n{complaint.read().decode()}")
        return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEGABYTE

    def memory(self, *words: object) -> tuple[float, float]:
        """Run charlstm with these words and JSON events; returns the most memory that it and its children held, and its plan, in MB."""
        command = [sys.executable, "-m", "charlstm", *map(str, words)]
        held, output = 0, self.folder / "events"
        with output.open("w") as out:
            child = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out
            )
            while child.poll() is None:
                held = max(held, _tree_bytes(child.pid))
                time.sleep(0.01)
        started = json.loads(output.read_text().splitlines()[0])
        return held / MEGABYTE, started["memory_bytes"] / MEGABYTE

    def in_turn(self, what: str, jobs: dict[str, Callable[[], float]]) -> Rounds:
        """Do all jobs once a round, in the same order; tells on stderr how far it is."""
        results: Rounds = {name: [] for name in jobs}
        for count in range(self.rounds):
            for name, job in jobs.items():
                results[name].append(job())
            print(f"{what}: round {count + 1} of {self.rounds}", file=sys.stderr, flush=True)
        return results

    def text(self, megabytes: int) -> Path:
        """A text of this size with all characters of the vocabulary: a million made-up characters, repeated."""
        path = self.folder / f"{megabytes}MB.txt"
        if not path.exists():
            rng = random.Random(1)
            words = ["".join(rng.choices(CHARACTERS[2:], k=rng.randint(2, 9))) for _ in range(2000)]
            block = CHARACTERS + " ".join(rng.choices(words, k=MEGABYTE // 4))
            with path.open("w", encoding="utf-8") as file:
                for _ in range(megabytes):
                    file.write(block[: MEGABYTE - 1] + "\n")
        return path


def _tree_bytes(pid: int) -> int:
    """Proportional set size of a process and its children."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(_tree_bytes(int(child)) for child in (task / "children").read_text().split())
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        pass  # it has just ended
    return total


# -- comparing --------------------------------------------------------------------------------------------------------


def fastest(rounds: Rounds, prefix: str) -> str | None:
    """Of the programs whose names begin so, the one with the smallest median."""
    return min(
        (name for name in rounds if name.startswith(prefix)), key=lambda name: median(rounds[name]), default=None
    )


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def spread(values: list[float]) -> str:
    """Median, and from where to where."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def compare(what: str, rounds: Rounds, chars: int, rivals: dict[str, str]) -> tuple[list[str], dict[str, Any]]:
    """One row: thousand characters a second of ours and of the fastest of each kind of rival, and how ours stand to them."""
    ours = rounds["charlstm"]
    words, times = [what, f"{chars / median(ours) / 1000:.1f}"], []
    numbers: dict[str, Any] = {"what": what, "chars": chars, "seconds": rounds, "ratio": {}, "rival": {}}
    for kind, prefix in rivals.items():
        name = fastest(rounds, prefix)
        if name is None:
            words.append("")
            times.append("")
            continue
        values = ratios(rounds[name], ours)
        words.append(f"{chars / median(rounds[name]) / 1000:.1f} {name.removeprefix(prefix)}")
        times.append(spread(values))
        numbers["ratio"][kind], numbers["rival"][kind] = median(values), name
    return words + times, numbers


def means(rows: list[dict[str, Any]], rivals: dict[str, str]) -> list[str]:
    """The last line of a table: geometric means of the ratios."""
    found = {kind: [row["ratio"][kind] for row in rows if kind in row["ratio"]] for kind in rivals}
    return [
        "geometric mean",
        "",
        *("" for _ in rivals),
        *(f"{geometric_mean(v):.2f}" if v else "" for v in found.values()),
    ]


# -- the sections -----------------------------------------------------------------------------------------------------


def defaults(bench: Bench, torch: bool) -> Section:
    """A training step with default batch, window and optimizer, beside PyTorch's with Adam and with Muon."""
    rivals = {"PyTorch, Adam": "torch adam ", "PyTorch, Muon": "torch muon ", "bare products": "products "}
    return _train(bench, DEFAULT_SHAPES, "muon", rivals if torch else {"bare products": "products "})


def train(bench: Bench, torch: bool) -> Section:
    """A training step with Adam, beside PyTorch's and beside the bare products."""
    rivals = {"PyTorch, Adam": "torch adam ", "bare products": "products "}
    return _train(bench, SHAPES, "adam", rivals if torch else {"bare products": "products "})


def _train(bench: Bench, shapes: list[tuple[int, int, int, int]], optimizer: str, rivals: dict[str, str]) -> Section:
    rows, numbers, text = [], [], str(bench.text(1))
    for layers, hidden, batch, seq in shapes:
        shape = {"layers": layers, "hidden": hidden, "batch": batch, "seq": seq, "seconds": bench.seconds}
        jobs = {"charlstm": lambda s=shape: bench.worker("train_charlstm", text=text, optimizer=optimizer, **s)}
        for prefix in rivals.values():
            kind, *peer = prefix.split()
            if kind == "torch":
                for inputs in ("onehot", "embedding"):
                    jobs[prefix + inputs] = lambda s=shape, o=peer[0], i=inputs: bench.worker(
                        "train_torch", inputs=i, optimizer=o, **s
                    )
            else:
                for threads in ("streams", "blas"):
                    jobs[prefix + threads] = lambda s=shape, t=threads: bench.worker("products", threads=t, **s)
        what = f"{layers}x{hidden}, {batch}, {seq}"
        row, number = compare(what, bench.in_turn(what, jobs), batch * seq, rivals)
        rows.append(row)
        numbers.append(number)
    headings = ["layers x hidden, batch, seq", "charlstm", *rivals, *(f"x {kind}" for kind in rivals)]
    title = f"Training with {optimizer.capitalize()}, thousand characters per second"
    return title, headings, [*rows, means(numbers, rivals)], numbers


def sample(bench: Bench, torch: bool) -> Section:
    """Sampling from the model's distribution beside two loops in PyTorch, each with its default threads and with one.

    The column "default" is `sample` as it is by default: sharpened, truncated, with line ends kept.
    """
    rivals, rows, numbers = {"PyTorch": "torch ", "default": "default "} if torch else {"default": "default "}, [], []
    for layers, hidden, n in SAMPLED:
        shape = {"layers": layers, "hidden": hidden, "n": n, "seconds": bench.seconds}
        jobs = {"charlstm": lambda s=shape: bench.worker("sample_charlstm", **s)}
        jobs["default "] = lambda s=shape: bench.worker("sample_charlstm", default=True, **s)
        for kind, threads in itertools.product(("nn.LSTM", "nn.LSTMCell"), (0, 1)) if torch else ():
            name = f"torch {kind}{', 1 thread' * threads}"
            jobs[name] = lambda s=shape, k=kind, t=threads: bench.worker("sample_torch", kind=k, threads=t, **s)
        what = f"{layers}x{hidden}, {n} at once"
        row, number = compare(what, bench.in_turn(what, jobs), n, rivals)
        rows.append(row)
        numbers.append(number)
    headings = ["layers x hidden, texts", "charlstm", *rivals, *(f"x {kind}" for kind in rivals)]
    return "Sampling, thousand characters a second", headings, [*rows, means(numbers, rivals)], numbers


def startup(bench: Bench, torch: bool) -> Section:
    """Whole processes, from start to end, in an empty folder, with bytecode that a first run has cached."""
    commands = {
        "import numpy": ["-c", "import numpy"],
        "charlstm --help": ["-m", "charlstm", "--help"],
        "charlstm sample --length 1": ["-m", "charlstm", "sample", "--length", 1, "--seed", 1],
    }
    environment = {name: value for name, value in bench.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(bench.folder / "bytecode")
    bench = Bench(3 * bench.rounds, 0, environment, bench.folder)
    for words in commands.values():
        bench.process(*words)  # the disk's cache, and the bytecode
    rounds = bench.in_turn("start-up", {name: lambda w=words: bench.process(*w)[0] for name, words in commands.items()})
    rows, numbers = [], []
    for name, times in rounds.items():
        values = ratios(times, rounds["import numpy"])
        rows.append([name, f"{1000 * median(times):.0f}", spread(values)])
        numbers.append({"what": name, "seconds": times, "ratio": median(values)})
    return "Start-up of a whole process, milliseconds", ["", "ms", "x import numpy"], rows, numbers


def growth(bench: Bench, torch: bool) -> Section:
    """Time a character at a small and at a large size, which should be the same."""
    shape = {"layers": 1, "hidden": 128, "seconds": bench.seconds}
    texts = {size: str(bench.text(size)) for size in (1, 100)}
    pairs: dict[str, dict[str, Callable[[], float]]] = {
        "sampling: 1,000 and 20,000 characters": {
            str(length): lambda k=length: bench.worker("sample_charlstm", n=1, length=k, **shape)
            for length in (1000, 20_000)
        },
        "training: texts of 1 MB and 100 MB": {
            f"{size} MB": lambda p=path: bench.worker("train_charlstm", batch=32, seq=64, text=p, **shape) / (32 * 64)
            for size, path in texts.items()
        },
    }
    rows, numbers = [], []
    for what, jobs in pairs.items():
        rounds = bench.in_turn(what, jobs)
        small, large = rounds.values()
        values = ratios(large, small)
        rows.append([what, f"{1e6 * median(small):.2f}", f"{1e6 * median(large):.2f}", spread(values)])
        numbers.append({"what": what, "seconds": rounds, "ratio": median(values)})
    return "Growth, microseconds a character, 1x128", ["", "small", "large", "large / small"], rows, numbers


def memory(bench: Bench, torch: bool) -> Section:
    """What `charlstm train` and its workers hold at most, against the plan that it prints; five steps, batch and seq as by default.

    Pages that processes share count once (Linux's proportional set size); the held-out text is kept short, because reading it takes a while.
    """
    rows, numbers = [], []
    for layers, hidden in ((1, 128), (2, 512)):
        for size in (1, 20):
            held, planned = bench.memory(
                "train", bench.text(size), "--layers", layers, "--hidden", hidden, "--steps", 5, "--val-fraction", 0.002,
                "--display", "json", "--if-exists", "overwrite", "--checkpoints", bench.folder / "runs",
            )  # fmt: skip
            rows.append(
                [f"{layers}x{hidden}, text of {size} MB", f"{planned:.0f}", f"{held:.0f}", f"{held / planned:.2f}"]
            )
            numbers.append({"what": rows[-1][0], "peak_mb": held, "planned_mb": planned})
    return "Memory of `charlstm train` at its peak, MB", ["", "planned", "held", "held / planned"], rows, numbers


SECTIONS = {section.__name__: section for section in (defaults, train, sample, startup, growth, memory)}


# -- the whole --------------------------------------------------------------------------------------------------------


def table(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    widths = [max(len(row[k]) for row in [headings, *rows]) for k in range(len(headings))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in [headings, *rows]
    ]
    return "\n".join([f"\n{title}\n", lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def main() -> None:
    """Measure, print, and write JSON where it is wanted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.speed", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: some minutes instead of an hour"
    )
    parser.add_argument("--only", choices=list(SECTIONS), help="one section instead of all")
    parser.add_argument("--rounds", type=int, help="how often everything is measured; 7, or 3 with --quick")
    parser.add_argument(
        "--coretype",
        choices=("keep", "auto"),
        default="keep",
        help="auto: without OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there")
    options = parser.parse_args()

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if options.coretype == "auto":
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            environment.pop(name, None)
    for name in [name for name in environment if name.startswith("CHARLSTM_")]:
        del environment[name]
    result: dict[str, Any] = {"quick": options.quick, "coretype": options.coretype}
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
        rounds = options.rounds or (3 if options.quick else 7)
        bench = Bench(rounds, 0.6 if options.quick else 3.0, environment, Path(folder))
        result |= {"rounds": rounds, "machine": bench.worker("machine")}
        for key, value in result["machine"].items():
            print(f"{key}: {value}")
        for name, section in SECTIONS.items():
            if options.only in (None, name):
                title, headings, rows, numbers = section(bench, result["machine"]["torch"] is not None)
                print(table(title, headings, rows), flush=True)
                result[name] = numbers
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
