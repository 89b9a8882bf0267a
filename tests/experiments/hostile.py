"""Damaged and hostile checkpoints by the thousand: is each refused in one sentence, quickly, and in little memory?

    python -m tests.experiments.hostile [--files 20000] [--commands 200] [--seed 1]

Files are made from a good one: bytes changed, cut, repeated or swapped as they lie; or members rebuilt, with valid checksums, from JSON and array
headers in which something was replaced by something strange; and one for each of the tricks that are known, which must be refused. What was changed as
it lies and still loads must hold the same numbers. So many of them go through `info` and `sample` as well, each a process of its own, of which the time
and the memory are taken. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.cli.app import main as charlstm
from charlstm.errors import CheckpointError
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import loop, state

SLOW_S, HANGS_S, MUCH_MB = 2.0, 15.0, 300
"""A command that is slow by the clock is run again, because a busy machine is slow once and a hang is there again; after so long it is killed."""
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
    run.schedule.end(12, 4, 16, 100)
    for _ in loop.train(run, *found.split(0.1)):
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


def tricks(data: bytes) -> dict[str, bytes]:
    """A file for each of the ways in which a checkpoint could do harm, or lie; all are to be refused."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(np.load(io.BytesIO(members["meta.npy"])).tobytes())
    points = np.load(io.BytesIO(members["vocabulary.npy"]))
    bias = np.load(io.BytesIO(members["param/out.b.npy"]))
    spoilt, surrogate = bias.copy(), np.sort(np.append(points[1:], np.uint32(0xD800)))
    spoilt[0] = np.nan
    claim = HEADERS[0].encode()
    claim = b"\x93NUMPY\x01\x00" + len(claim).to_bytes(2, "little") + claim
    flipped = bytearray(data)
    flipped[data.index(b"param/layer1.U") + 300] ^= 1

    def made(compression: int = zipfile.ZIP_STORED, twice: str = "", **changed: bytes | None) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, content in (members | changed).items():
                if content is not None:
                    archive.writestr(name, content)
            if twice:
                archive.writestr(twice, members[twice])
        return file.getvalue()

    def with_meta(**changed: Any) -> bytes:
        return made(**{"meta.npy": npy(np.frombuffer(json.dumps(meta | changed).encode(), np.uint8))})

    small = {name: None for name in members if name.startswith(("slot/", "good/", "state/", "average/"))}
    return {
        "a kilobyte that claims to be 100 GB": made(**small | {"param/out.b.npy": claim}),
        "a length of 100 GB in the archive's own list": made().replace(
            len(members["param/out.b.npy"]).to_bytes(4, "little"), (0xFFFFFFF0).to_bytes(4, "little")
        ),
        "a bomb": made(zipfile.ZIP_DEFLATED, **{"param/out.b.npy": npy(np.zeros(10_000_000, np.float32))}),
        "a bomb beside the model": made(zipfile.ZIP_DEFLATED, **{"param/more.npy": bytes(50_000_000)}),
        "a name twice": made(twice="param/out.b.npy"),
        "a path as a name": made(**{"../../etc/passwd.npy": members["param/out.b.npy"]}),
        "an absolute path as a name": made(**{"/etc/passwd": members["param/out.b.npy"]}),
        "a tail that is missing": data[:-300],
        "half of it": data[: len(data) // 2],
        "a bit that is flipped": bytes(flipped),
        "a number that is none": made(**{"param/out.b.npy": npy(spoilt)}),
        "text that is no JSON": made(**{"meta.npy": npy(np.frombuffer(b"{oops", np.uint8))}),
        "JSON too deep": made(**{"meta.npy": npy(np.frombuffer(b"[" * 200_000, np.uint8))}),
        "JSON that is no object": made(**{"meta.npy": npy(np.frombuffer(b"7", np.uint8))}),
        "a character twice": made(**{"vocabulary.npy": npy(np.append(points[:-1], points[-2]))}),
        "half a character": made(**{"vocabulary.npy": npy(surrogate)}),
        "a character beyond all": made(**{"vocabulary.npy": npy(np.append(points[:-1], np.uint32(0x110000)))}),
        "another version": with_meta(format=2),
        "no version": with_meta(format=None),
        "a model of 100 GB": with_meta(
            model=meta["model"] | {"hidden": 16384}, config=meta["config"] | {"hidden": 16384}
        ),
        "a pickle": made(**{"param/out.b.npy": npy(np.array([{}], object), allow_pickle=True)}),
        "nothing": b"",
        "an empty archive": b"PK\x05\x06" + bytes(18),
    }


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


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def numbers(path: Path) -> list[np.ndarray]:
    """Every array of a run."""
    run = checkpoint.load_run(path)
    return [
        *run.params.values(),
        *run.slots.values(),
        *run.snapshot.values(),
        run.recurrent_state.h,
        run.recurrent_state.c,
    ]


def megabytes(used: resource.struct_rusage) -> float:
    """The most memory that a process has held."""
    return used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def command(words: list[str]) -> tuple[int, str]:
    """Run the program in this process; its status and what it complained of."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        return charlstm(words), err.getvalue()


def process(words: list[str]) -> tuple[int, str, float, float]:
    """Run the program as a process: its status, what it complained of, the seconds that it took and the most memory that it held, in MB."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            [sys.executable, "-m", "charlstm", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err
        )  # fmt: skip
        watch = threading.Timer(HANGS_S, child.kill)
        watch.start()
        _, status, used = os.wait4(child.pid, 0)
        watch.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        return child.returncode, err.read().decode(errors="replace"), time.perf_counter() - began, megabytes(used)


def main() -> None:
    """Make them, load them, count, and end with status 1 if any broke the promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.hostile")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, outcomes, broken, slowest = np.random.default_rng(options.seed), Counter[str](), [], 0.0
    slowest_command, most_mb, again = 0.0, 0.0, list[float]()
    warnings.simplefilter("ignore", UserWarning)  # zipfile's, when it is made to write a name twice
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        folder = Path(name)
        path = good(folder)
        data, expected = path.read_bytes(), numbers(path)
        known, bad = list(tricks(data).items()), folder / "bad.npz"
        for count in range(options.files):
            trick, lies = known[count][0] if count < len(known) else "", count % 2 == 0
            made = known[count][1] if trick else changed_as_it_lies(data, rng) if lies else rebuilt(data, rng)
            bad.write_bytes(made)
            before = time.perf_counter()
            try:
                found = numbers(bad)
                same = all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
                outcomes["loaded, the same numbers" if same else "loaded"] += 1
                if trick or (lies and not same):
                    broken.append((count, f"{trick or 'a damaged file'} was taken for a good one"))
            except CheckpointError as error:
                outcomes["refused"] += 1
                if "\n" in str(error) or str(bad) not in str(error):
                    broken.append((count, f"not one sentence that names the file: {error!s:.200}"))
            except Exception as error:  # whatever else comes is what is looked for
                broken.append((count, f"{type(error).__name__}: {error!s:.200}"))
            slowest = max(slowest, time.perf_counter() - before)
            if count < options.commands:
                for words in (["info", str(bad)], ["sample", str(bad), "--length", "20", "--seed", "1"]):
                    status, complaint, seconds, mb = process(words)
                    if seconds > SLOW_S:
                        again.append(seconds)
                        status, complaint, seconds, mb = process(words)
                    slowest_command, most_mb = max(slowest_command, seconds), max(most_mb, mb)
                    outcomes[f"{words[0]}: status {status}"] += 1
                    sentences = complaint.count("charlstm: ")
                    if (
                        status not in (0, 1, 2)
                        or "Traceback" in complaint
                        or sentences != (status > 0)
                        or (trick and not status)
                    ):
                        broken.append((count, f"{trick} {words[0]} ended with {status}: {complaint:.200}"))
    most_mb = max(most_mb, megabytes(resource.getrusage(resource.RUSAGE_SELF)))
    if max(slowest, slowest_command) > SLOW_S:
        broken.append((-1, f"one file took {max(slowest, slowest_command):.1f} s"))
    if most_mb > MUCH_MB:
        broken.append((-1, f"{most_mb:.0f} MB were held"))
    print(f"{options.files} files: {', '.join(f'{n} {what}' for what, n in sorted(outcomes.items()))}")
    print(
        f"the slowest took {slowest * 1000:.0f} ms to load, {slowest_command * 1000:.0f} ms as a command; {most_mb:.0f} MB at most"
    )
    if again:
        print(f"slow at first, so run again: {len(again)} commands, the slowest {max(again):.1f} s")
    print(f"{len(known)} of them were tricks that are known; {len(broken)} broke the promise")
    for count, what in broken[:20]:
        print(f"  file {count}: {what}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
