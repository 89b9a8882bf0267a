"""A text larger than memory should be: encoding speed, resident memory, time per character, and the first step of `resume`.

    python -m tests.experiments.large_text --gb 20 --folder /scratch
    python -m tests.experiments.large_text --gb 0.2 --steps 40

It makes a text of repeated, varied lines (and one beyond ASCII, a tenth as long), trains on it and on its first 10 MB in turns, and
removes both. Resident memory is the largest proportional set size (PSS) of any process of the run, as in /proc/PID/smaps, without the
mapped file of ids, which the system can take back at any time. Time per character is CPU time of all processes over the steps, by the
difference of a long and a short run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from charlstm.text import corpus
from charlstm.text.batches import Batches, Cursor

BLOCK_LINES = 200_000
SETTINGS = ("--init-from", "none", "--preview-every", "1", "--eval-every", "1000000", "--display", "json")
SMALL_BYTES = 10_000_000
WINDOWS = 2000
LATIN, CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстуфхцчшщыэюя"


class Ran(NamedTuple):
    """What was measured of a command."""

    events: list[dict[str, Any]]
    wall_s: float
    first_step_s: float  # from the start of the process
    cpu_s: float
    pss_mb: float  # largest of any of its processes, without mapped ids
    total_mb: float  # largest of all of them together
    mapped_mb: float  # largest resident part of mapped ids


def make(path: Path, size: int, letters: str) -> None:
    """Write a text of at least this many bytes: a block of random sentences, again and again, with a number before each."""
    rng = random.Random(1)
    words = ["".join(rng.choices(letters, k=rng.randrange(1, 10))) for _ in range(5000)]
    lines = (" ".join(rng.choices(words, k=rng.randrange(3, 15))).capitalize() + ".\n" for _ in range(BLOCK_LINES))
    block = "".join(lines).encode()
    with path.open("wb") as file:
        for number in range(-(-size // len(block))):
            file.write(f"Part {number}.\n".encode() + block)


def rollup(pid: int) -> tuple[float, float]:
    """Return the PSS of a process without mapped ids, and the resident part of those, in MB."""
    own = mapped = 0
    ids = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, *values = line.split()
        if "-" in key and not key.endswith(":"):
            ids = ".ids" in line
        elif key == "Pss:":
            own += 0 if ids else int(values[0])
            mapped += int(values[0]) if ids else 0
    return own / 1024, mapped / 1024


def processes(pid: int) -> Iterator[int]:
    """Yield a process and its children."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from processes(int(child))


def run(*words: object, cache: Path) -> Ran:
    """Run a command, and watch its memory."""
    began = time.monotonic()
    environment = os.environ | {"CHARLSTM_CACHE": str(cache)}
    before = os.times()
    job = subprocess.Popen(
        [sys.executable, "-m", "charlstm", *map(str, words)], stdout=subprocess.PIPE, env=environment, cwd=cache
    )
    assert job.stdout is not None
    os.set_blocking(job.stdout.fileno(), False)
    output, first, pss, total, mapped = b"", 0.0, 0.0, 0.0, 0.0
    while job.poll() is None:
        output += job.stdout.read() or b""
        if not first and b'"progress"' in output:
            first = time.monotonic() - began
        together = 0.0
        for pid in processes(job.pid):
            with contextlib.suppress(OSError, ValueError):
                own, ids = rollup(pid)
                pss, mapped, together = max(pss, own), max(mapped, ids), together + own
        total = max(total, together)
        time.sleep(0.05)
    output += job.stdout.read() or b""
    if job.returncode:
        sys.exit(f"{words} ended with status {job.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    events = [json.loads(line) for line in output.splitlines()]
    return Ran(events, time.monotonic() - began, first, cpu, pss, total, mapped)


def encode(path: Path, cache: Path | None) -> str:
    """Return the speed of reading a text, in MB of the file per second."""
    size, wall, cpu = path.stat().st_size / 1e6, time.monotonic(), time.process_time()
    corpus.read([str(path)], cache=cache)
    return (
        f"{size / (time.monotonic() - wall):.0f} MB/s ({size / (time.process_time() - cpu):.0f} per second of CPU time)"
    )


def window_us(text: Path, cache: Path | None) -> float:
    """Return the CPU time in microseconds that the ids of a window take."""
    batches, cursor, rng = (
        Batches(corpus.read([str(text)], cache=cache).ids, 32, 64, 32),
        Cursor(),
        np.random.default_rng(1),
    )
    before = time.process_time()
    for _ in range(WINDOWS):
        batches.next(cursor, rng)
    return 1e6 * (time.process_time() - before) / WINDOWS


def per_char(name: str, done: int, steps: int, cache: Path) -> float:
    """Resume a run that has done some steps; return the CPU time per character in ns, of a long run less a short one."""
    times = [
        run("resume", name, "--steps", n, "--display", "json", cache=cache).cpu_s for n in (done + 5, done + 10 + steps)
    ]
    return 1e9 * (times[1] - times[0]) / (steps * 32 * 64)


def main() -> None:
    """Make the texts, measure, and remove them."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.large_text", description=__doc__.split("\n")[0])
    parser.add_argument("--gb", type=float, default=2.0, help="size of the text")
    parser.add_argument("--steps", type=int, default=200, help="steps per measurement")
    parser.add_argument("--turns", type=int, default=3, help="times to compare with the short text")
    parser.add_argument("--settings", default="--hidden 256 --layers 1", help="options of the run")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the texts and the cache")
    given = parser.parse_args()
    settings = given.settings.split()
    with tempfile.TemporaryDirectory(prefix="charlstm-", dir=given.folder) as made:
        folder = Path(made)
        text, other, small = folder / "large.txt", folder / "beyond.txt", folder / "small.txt"
        make(text, int(given.gb * 1e9), LATIN)
        make(other, int(given.gb * 1e8), CYRILLIC)
        with text.open("rb") as file:
            small.write_bytes(file.read(SMALL_BYTES))
        print(f"{given.gb:g} GB, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, settings {given.settings}")
        print(f"encoding ASCII:  {encode(text, folder)}")
        print(f"encoding beyond: {encode(other, folder)}")
        other.unlink()
        first = run("train", text, "--steps", given.steps, *SETTINGS, *settings, cache=folder)
        started = next(event for event in first.events if event["event"] == "started")
        planned = started["memory_bytes"] / 1e6
        print(
            f"resident:        {first.pss_mb:.0f} MB per process at most, {first.total_mb:.0f} MB in all ({planned:.0f} planned)"
        )
        print(f"mapped:          {first.mapped_mb:.0f} MB of the file are resident")
        print(f"train, cached:   first step after {first.first_step_s:.1f} s")
        again = run("resume", "large", "--steps", given.steps + 10, "--display", "json", cache=folder)
        print(f"resume:          first step after {again.first_step_s:.1f} s ({again.cpu_s:.1f} s of CPU time in all)")
        print(
            f"a window:        {window_us(text, folder):.0f} us from the file, {window_us(small, None):.0f} us from memory"
        )
        print("CPU time per character in ns, large and small text in turns:")
        run("train", small, "--steps", given.steps + 10, *SETTINGS, *settings, cache=folder)
        ratios, done = [], given.steps + 10
        for turn in range(given.turns):
            large_ns, small_ns = (per_char(name, done, given.steps, folder) for name in ("large", "small"))
            done += given.steps + 10
            ratios.append(large_ns / small_ns)
            print(f"  {turn + 1}: {large_ns:.0f} and {small_ns:.0f}, ratio {ratios[-1]:.3f}")
        print(f"median ratio:    {sorted(ratios)[len(ratios) // 2]:.3f}")


if __name__ == "__main__":
    main()
