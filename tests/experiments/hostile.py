"""Damaged and hostile checkpoints by the thousand: is each refused in one sentence, quickly, and in little memory?

    python -m tests.experiments.hostile [--files 20000] [--commands 200] [--seed 1]

Files are made from a good one: bytes changed, cut, repeated or swapped as they lie; or members rebuilt, with valid checksums, from JSON and array
headers in which something was replaced by something strange. What was changed as it lies and still loads must hold the same numbers. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from charlstm import checkpoint, corpus, state, training
from charlstm.cli import main as charlstm
from charlstm.errors import CheckpointError
from charlstm.settings import TrainConfig

SLOW_S, MUCH_MB = 2.0, 300
STRANGE: list[Any] = [
    None, True, -1, 0, 10**9, 10**30, 1e308, -0.0, "", "x" * 300, "\ud800", [], [[]], [1, "a"], {}, {"a": 1}, "../../etc/passwd", "\x1b[2J",
]  # fmt: skip
HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (25000000000,), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (2, -3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (), }",
    "{'descr': '<U9', 'fortran_order': False, 'shape': (3,), }",
    "__import__('os').system('true')",
    "(" * 5000,
]

Rng = np.random.Generator


def good(folder: Path) -> Path:
    """A checkpoint of a run of a few steps."""
    text = folder / "text.txt"
    text.write_text("the cat sat on the mat, and the dog ate it all.\n" * 30, encoding="utf-8")
    found = corpus.read([str(text)])
    run, _ = state.begin(found, TrainConfig(hidden=6, layers=1, batch=2, seq=8))
    run.plan.end(12, 4, 16, 100)
    for _ in training.train(run, *found.split(0.1)):
        pass
    path = folder / "good.npz"
    checkpoint.save_run(path, run)
    return path


def changed_as_it_lies(data: bytes, rng: Rng) -> bytes:
    """Bytes changed, cut, repeated, zeroed or swapped."""
    raw, at = bytearray(data), int(rng.integers(len(data)))
    length = int(rng.integers(1, 200))
    match int(rng.integers(6)):
        case 0:
            raw[at] ^= 1 << int(rng.integers(8))
        case 1:
            for place in rng.integers(len(raw), size=length):
                raw[place] = int(rng.integers(256))
        case 2:
            del raw[at:]
        case 3:
            raw[at:at] = raw[at : at + length]
        case 4:
            raw[at : at + length] = bytes(min(length, len(raw) - at))
        case 5:
            del raw[at : at + length]
    return bytes(raw)


def rebuilt(data: bytes, rng: Rng) -> bytes:
    """Valid members in which one thing is strange."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(rng.choice(list(members)))
    match int(rng.integers(5)):
        case 0 | 1 | 2:
            meta = json.loads(np.load(io.BytesIO(members["meta.npy"])).tobytes())
            put_strange(meta, rng)
            members["meta.npy"] = npy(np.frombuffer(json.dumps(meta).encode(), np.uint8))
        case 3:
            header = HEADERS[int(rng.integers(len(HEADERS)))].encode()
            members[name] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + members[name][-64:]
        case 4:
            if rng.random() < 0.5:
                del members[name]
            else:
                members[str(rng.choice(["/etc/passwd", "../up.npy", "param/new.npy", "a" * 5000 + ".npy"]))] = members[
                    name
                ]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.05 else zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
            if rng.random() < 0.005:
                archive.writestr(name, content)
    return file.getvalue()


def put_strange(tree: Any, rng: Rng) -> None:
    """Replace one value somewhere in JSON, or take it away."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(tree[key], (dict, list)) and tree[key] and rng.random() < 0.7:
            tree = tree[key]
        elif rng.random() < 0.1:
            del tree[key]
            return
        else:
            tree[key] = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
            return


def npy(array: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def numbers(path: Path) -> list[np.ndarray]:
    """Every array of a run."""
    run = checkpoint.load_run(path)
    return [*run.params.values(), *run.slots.values(), *run.good.values(), run.carried.h, run.carried.c]


def held_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def command(words: list[str]) -> tuple[int, str]:
    """Run the program in this process; its status and what it complained of."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return charlstm(words), err.getvalue()


def main() -> None:
    """Make them, load them, count, and end with status 1 if any broke the promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.hostile")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, outcomes, broken, slowest = np.random.default_rng(options.seed), Counter[str](), [], 0.0
    warnings.simplefilter("ignore", UserWarning)  # zipfile's, when it is made to write a name twice
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        folder = Path(name)
        path = good(folder)
        data, expected = path.read_bytes(), numbers(path)
        bad = folder / "bad.npz"
        for count in range(options.files):
            lies = count % 2 == 0
            bad.write_bytes(changed_as_it_lies(data, rng) if lies else rebuilt(data, rng))
            before = time.perf_counter()
            try:
                found = numbers(bad)
                same = all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
                outcomes["loaded, the same numbers" if same else "loaded"] += 1
                if lies and not same:
                    broken.append((count, "a damaged file was taken for a good one"))
            except CheckpointError as error:
                outcomes["refused"] += 1
                if "\n" in str(error) or str(bad) not in str(error):
                    broken.append((count, f"not one sentence that names the file: {error!s:.200}"))
            except Exception as error:  # whatever else comes is what is looked for
                broken.append((count, f"{type(error).__name__}: {error!s:.200}"))
            slowest = max(slowest, time.perf_counter() - before)
            if count < options.commands:
                for words in (["info", str(bad)], ["sample", str(bad), "--length", "20", "--seed", "1"]):
                    try:
                        status, complaint = command(words)
                    except Exception as error:
                        broken.append((count, f"{words[0]}: {type(error).__name__}: {error!s:.200}"))
                        continue
                    outcomes[f"{words[0]}: status {status}"] += 1
                    if status not in (0, 1, 2) or "Traceback" in complaint:
                        broken.append((count, f"{words[0]} ended with {status}: {complaint:.200}"))
    if slowest > SLOW_S:
        broken.append((-1, f"one file took {slowest:.1f} s"))
    if held_mb() > MUCH_MB:
        broken.append((-1, f"{held_mb():.0f} MB were held"))
    print(f"{options.files} files: {', '.join(f'{n} {what}' for what, n in sorted(outcomes.items()))}")
    print(f"the slowest took {slowest * 1000:.0f} ms; {held_mb():.0f} MB at most; {len(broken)} broke the promise")
    for count, what in broken[:20]:
        print(f"  file {count}: {what}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
