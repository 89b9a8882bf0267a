"""Every field of a checkpoint's JSON at its edges and beyond, through every command that reads one.

    python -m tests.experiments.fields [--files 6000] [--first 0] [--seed 1]

Each file is a good one in which one value, or two, became 0, -1, 2^31, 2^63, 10^400, something of another type, or nothing at all. It goes through
`sample`, `info`, `eval` and `resume`, in batches that share a process. What must hold: one sentence or none, no traceback, nothing over 3 seconds or
400 MB, no number that is not finite, no escape sequence on a terminal, and no file touched but the run itself. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.app import main as charlstm
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import loop, state
from tests.experiments import hostile

SLOW_S, HANGS_S, MUCH_MB, BATCH = 3.0, 20, 400, 60
MISSING = object()
EDGES: list[Any] = [
    0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e308, -0.0, 0.5, True, None, "", "x", "\x1b[2J\x07\n\u202e", [], [0], {}, MISSING,
]  # fmt: skip
SOURCES: list[Any] = [
    ["/**/*"], ["/"], ["~"], ["."], ["-"], ["/dev/zero"], ["x" * 20_000_000], ["/no/such/file"] * 200_000, [""], ["\0"], ["\ud800"], ["fables"], ["pipe"],
]  # fmt: skip
TEXT = "the cat sat at the mat; a sheep ate it all.\n" * 30
"""A file that uses only these letters can't contain "nan" or "inf" by chance."""
NOT_FINITE = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)
COMMANDS = {
    "sample": ["--length", "20", "--seed", "1"],
    "info": [],
    "info --json": ["--json"],
    "eval": ["text.txt", "--unknown", "skip"],
    "resume": ["--steps", "14", "--threads", "1", "--preview-every", "0", "--display", "lines"],
}


@dataclass
class Found:
    """What a batch of files led to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    most_mb: float = 0.0


class Terminal(io.TextIOWrapper):
    """Takes what is printed, and claims to be a terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", errors="surrogateescape", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        return self.buffer.getvalue().decode(errors="surrogateescape")  # type: ignore[attr-defined,no-any-return]


def bases(folder: Path) -> list[Path]:
    """Good files: one in the middle of an epoch, one of a deeper model with dropout, one that can only be sampled from."""
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    found = corpus.read([str(text)])
    paths = []
    for name, settings in (("plain", {}), ("deep", {"layers": 2, "dropout": 0.3, "optimizer": "adam"})):
        run, _ = state.begin(found, TrainConfig(**{"hidden": 6, "batch": 2, "seq": 8} | settings))  # type: ignore[arg-type]
        run.schedule.end(12, 4, 16, 100)
        for _ in loop.train(run, *found.split(0.1)):
            pass
        checkpoint.save_run(folder / f"{name}.npz", run)
        checkpoint.save_model(folder / f"{name}.best.npz", run)
        paths.append(folder / f"{name}.npz")
    return [*paths, folder / "plain.best.npz"]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in JSON; of a list, to the first and the last."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from places(tree[key], (*path, key))
    elif isinstance(tree, list) and tree:
        for key in {0, len(tree) - 1}:
            yield from places(tree[key], (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of JSON with another value in one place."""
    tree = copy.deepcopy(tree)
    at = tree
    try:
        for key in path[:-1]:
            at = at[key]
        if value is MISSING:
            del at[path[-1]]
        else:
            at[path[-1]] = value
    except (KeyError, IndexError, TypeError):  # an earlier change took the place away
        pass
    return tree


def cases(metas: list[Any], files: int, rng: np.random.Generator) -> Iterator[tuple[int, str, Any]]:
    """Which base, what was changed, and the JSON: every field with every edge, then two at once until there are enough."""
    count = 0
    for value, base in itertools.product(SOURCES, range(2)):
        count += 1
        yield base, f"text.sources = {value!r:.40}", changed(metas[base], ("text", "sources"), value)
    for base, meta in enumerate(metas):
        for path, value in itertools.product(places(meta), EDGES):
            count += 1
            yield (
                base,
                f"{'.'.join(map(str, path))} = {'nothing' if value is MISSING else f'{value!r:.40}'}",
                changed(meta, path, value),
            )
    everywhere = [list(places(meta)) for meta in metas]
    while count < files:
        base, meta, said = count % len(metas), metas[count % len(metas)], []
        for _ in range(2):
            path = everywhere[base][int(rng.integers(len(everywhere[base])))]
            value = EDGES[int(rng.integers(len(EDGES)))]
            meta = changed(meta, path, value)
            said.append(f"{'.'.join(map(str, path))} = {'nothing' if value is MISSING else f'{value!r:.40}'}")
        count += 1
        yield base, " and ".join(said), meta


def run(words: list[str]) -> tuple[int | str, str, float]:
    """Run the program in this process, at a terminal that shows nothing but text; its status, what it printed, and the seconds."""
    screen = Terminal()
    began = time.perf_counter()
    signal.alarm(HANGS_S)
    try:
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            status: int | str = charlstm(words)
    except BaseException:
        status = traceback.format_exc()[-300:]
    signal.alarm(0)
    return status, screen.text(), time.perf_counter() - began


def snapshot(folder: Path) -> dict[str, str]:
    """What every file in a folder holds."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def batch(given: tuple[Path, list[tuple[int, str, Any]], list[Path]]) -> Found:
    """Put some files through all commands, in a process of its own."""
    root, files, good = given
    found = Found()
    folder = Path(tempfile.mkdtemp(dir=root))
    os.chdir(folder)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    os.mkfifo("pipe")
    Path("checkpoints").mkdir()
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("it hangs")))
    for base, what, meta in files:
        data = json.dumps(meta).replace(json.dumps(str(root / "text.txt")), json.dumps(str(folder / "text.txt")))
        with np.load(good[base]) as arrays:
            members = dict(arrays) | {"meta": np.frombuffer(data.encode(), np.uint8)}
        name = good[base].name
        for command, options in COMMANDS.items():
            for path in Path("checkpoints").iterdir():
                path.unlink()
            np.savez(f"checkpoints/{name}", **members)
            before = snapshot(folder)
            status, printed, seconds = run([command.split()[0], f"checkpoints/{name}", *options])
            after = snapshot(folder)
            found.outcomes[f"{command}: {status if isinstance(status, int) else 'traceback'}"] += 1
            found.slowest_s = max(found.slowest_s, seconds)
            allowed = {
                str(folder / "checkpoints" / n)
                for n in ("plain.npz", "plain.best.npz", "deep.npz", "deep.best.npz", ".plain.lock", ".deep.lock")
            }
            touched = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
            complaints = {
                "traceback or hang": not isinstance(status, int) or "Traceback" in printed,
                "status": status not in (0, 1, 2, 3),
                "sentences": printed.count("charlstm: ") != (status != 0),
                "not finite": bool(NOT_FINITE.search(printed)),
                "escape": any(c in printed for c in "\x1b\x07\u202e"),
                "slow": seconds > SLOW_S,
                "touched": bool(touched - (allowed if command == "resume" else set())),
                "long": len(max(printed.splitlines() or [""], key=len)) > 5000 and command != "info --json",
            }
            for complaint in (name for name, holds in complaints.items() if holds):
                shown = status if isinstance(status, str) else printed[-300:]
                found.broken.append(f"{complaint}: {command}, {good[base].name}, {what} ({seconds:.1f} s): {shown}")
    found.most_mb = hostile.megabytes(resource.getrusage(resource.RUSAGE_SELF))
    return found


def main() -> None:
    """Make them, run the commands on them, count, and end with status 1 if any broke the promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.fields")
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="Begin with this one.")
    parser.add_argument("--only", default="", help="Only changes that contain this text.")
    options = parser.parse_args()
    os.environ.update(TERM="dumb", NO_COLOR="1", COLUMNS="100")
    total, count = Found(), 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        root = Path(name)
        good = bases(root)
        metas = [json.loads(np.load(path)["meta"].tobytes()) for path in good]
        made = [
            case for case in cases(metas, options.files, np.random.default_rng(options.seed)) if options.only in case[1]
        ]
        made, outside = made[options.first :], snapshot(root)
        batches = [(root, made[k : k + BATCH], good) for k in range(0, len(made), BATCH)]
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            for found in pool.imap_unordered(batch, batches):
                total.outcomes.update(found.outcomes)
                total.broken += found.broken
                total.slowest_s = max(total.slowest_s, found.slowest_s)
                total.most_mb = max(total.most_mb, found.most_mb)
                count += len(found.broken)
                print(
                    f"{sum(total.outcomes.values()) // len(COMMANDS)} files, {count} broken",
                    end="\r",
                    file=sys.stderr,
                    flush=True,
                )
        if any(snapshot(root).get(path) != content for path, content in outside.items()):
            total.broken.append("touched: a file outside the folder")
    if total.most_mb > MUCH_MB:
        total.broken.append(f"memory: {total.most_mb:.0f} MB")
    print(f"{len(made)} files through {', '.join(COMMANDS)}, in {time.perf_counter() - began:.0f} s")
    print(", ".join(f"{n} {what}" for what, n in sorted(total.outcomes.items())))
    print(f"the slowest command took {total.slowest_s:.2f} s; {total.most_mb:.0f} MB at most")
    print(f"{len(total.broken)} broke the promise")
    for what in total.broken[:40]:
        print(f"  {what}")
    sys.exit(bool(total.broken))


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
