"""Special files in place of each file that a command reads or writes: what happens, and is anything destroyed?

    python -m tests.experiments.special [ROW ...] [--every N]

Fourteen kinds of file (device, FIFO, socket, directory, links that dangle, loop, lead elsewhere or to a good file, hard links,
read-only, unreadable, empty, growing, removed) take the place of what each command reads or writes. The table says how each
command ended; a cell with "!" broke a promise: a traceback, more than one sentence, a wait without end, or a file elsewhere that is not as it was. POSIX only.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import loop, state

PATIENCE_S = 60
TEXT = "the cat sat on the mat, and the dog ate it all.\n" * 40
PRECIOUS = b"precious\n"


def directory(path: Path, whole: bytes) -> None:
    path.mkdir()


def unix_socket(path: Path, whole: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket must be short
        made.bind(path.name)
        os.chdir(here)


def growing(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)

    def grow() -> None:
        for _ in range(50):
            time.sleep(0.02)
            if path.exists():
                with open(path, "ab") as file:
                    file.write(b"x" * 1000)

    threading.Thread(target=grow, daemon=True).start()


def removed(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    threading.Timer(0.3, lambda: path.unlink(missing_ok=True)).start()


def with_mode(mode: int) -> Callable[[Path, bytes], None]:
    def make(path: Path, whole: bytes) -> None:
        path.write_bytes(whole)
        path.chmod(mode)

    return make


def hard_link(path: Path, whole: bytes) -> None:
    (path.parent / "twin").write_bytes(whole)
    os.link(path.parent / "twin", path)


def good_link(path: Path, whole: bytes) -> None:
    (path.parent / "target").write_bytes(whole)
    path.symlink_to("target")


KINDS: dict[str, Callable[[Path, bytes], object]] = {
    "device": lambda path, whole: path.symlink_to("/dev/null"),
    "FIFO": lambda path, whole: os.mkfifo(path),
    "socket": unix_socket,
    "directory": directory,
    "dangling link": lambda path, whole: path.symlink_to("nowhere"),
    "looping link": lambda path, whole: path.symlink_to(path.name),
    "foreign link": lambda path, whole: path.symlink_to("../elsewhere/precious"),
    "link to a good one": good_link,
    "hard link": hard_link,
    "read-only": with_mode(0o444),
    "unreadable": with_mode(0o000),
    "empty": lambda path, whole: path.touch(),
    "growing": growing,
    "removed": removed,
}
RUN = ["--hidden", "6", "--batch", "2", "--seq", "8", "--preview-every", "0", "--display", "none", "--threads", "1"]
ROWS: dict[str, tuple[str, list[str]]] = {  # what is special, and the command
    "sample RUN": ("checkpoints/r.best.npz", ["sample", "checkpoints/r.best.npz", "--length", "9"]),
    "sample": ("checkpoints/s.npz", ["sample", "--length", "9"]),
    "info RUN": ("checkpoints/r.npz", ["info", "checkpoints/r.npz"]),
    "info": ("checkpoints/s.npz", ["info"]),
    "eval RUN": ("checkpoints/r.best.npz", ["eval", "checkpoints/r.best.npz", "text.txt"]),
    "eval TEXT": ("other.txt", ["eval", "r", "other.txt", "--unknown", "skip"]),
    "export RUN": ("checkpoints/r.best.npz", ["export", "checkpoints/r.best.npz", "page.html"]),
    "resume RUN": ("checkpoints/r.npz", ["resume", "checkpoints/r.npz", "--steps", "9", *RUN[6:]]),
    "train TEXT": ("other.txt", ["train", "other.txt", "--steps", "3", *RUN]),
    "train -> run": ("checkpoints/n.npz", ["train", "text.txt", "--name", "n", "--if-exists", "overwrite", "--steps", "3", *RUN]),
    "train -> best": ("checkpoints/n.best.npz", ["train", "text.txt", "--name", "n", "--if-exists", "overwrite", "--steps", "3", *RUN]),
    "train -> lock": ("checkpoints/.n.lock", ["train", "text.txt", "--name", "n", "--steps", "3", *RUN]),
    "resume -> lock": ("checkpoints/.r.lock", ["resume", "r", "--steps", "9", *RUN[6:]]),
    "train, checkpoints": ("folder", ["train", "text.txt", "--checkpoints", "folder", "--steps", "3", *RUN]),
    "sample --output": ("out.txt", ["sample", "r", "--length", "9", "--output", "out.txt"]),
    "info --plot": ("out.svg", ["info", "r", "--plot", "out.svg"]),
    "export -> file": ("out.html", ["export", "r", "out.html", "--force"]),
    "--prompt-file": ("prompt.txt", ["sample", "r", "--length", "9", "--unknown", "skip", "--prompt-file", "prompt.txt"]),
    "--init-from": ("checkpoints/s.npz", ["train", "text.txt", "--name", "n", "--init-from", "s", "--steps", "3", *RUN[2:]]),
}  # fmt: skip


def whole(path: str, folder: Path) -> bytes:
    """What a good file in this place would hold."""
    if path.endswith(".npz"):
        return (folder / "checkpoints/r.npz").read_bytes()
    return b"" if path.endswith(".lock") else TEXT.encode()


def guarded(folder: Path) -> dict[str, Any]:
    """Everything that no command may touch."""
    found: dict[str, Any] = {
        "/dev/null": stat.S_IFMT(Path("/dev/null").stat().st_mode),
        "entries": sorted(path.name for path in (folder / "elsewhere").iterdir()),
    }
    for path in (folder / "elsewhere/precious", folder / "work/text.txt"):
        found[path.name] = (path.read_bytes(), path.stat().st_mode, path.stat().st_ino)
    return found


def cell(root: Path, template: Path, row: str, kind: str) -> str:
    """Run one command with one kind of file; the exit status, and what was broken."""
    folder = Path(tempfile.mkdtemp(dir=root))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    place, words = ROWS[row]
    path = folder / "work" / place
    content = whole(place, folder / "work")
    if path.exists():
        path.unlink()
    KINDS[kind](path, content)
    fifo = path.lstat().st_mode if kind == "FIFO" else 0
    before = guarded(folder)
    twin, target = (path.parent / name for name in ("twin", "target"))
    both = [(p, p.read_bytes()) for p in (twin,) if p.exists()]
    process = subprocess.Popen(
        [sys.executable, "-m", "charlstm", *words],
        cwd=folder / "work", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=ordinary if os.geteuid() == 0 else None,
    )  # fmt: skip
    if kind == "FIFO":  # somebody at its other end; a FIFO that must be opened waits for him, as in a shell
        threading.Thread(target=other_end, args=(path, content, process), daemon=True).start()
    try:
        _, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "waits!"
    complaint = err.decode(errors="replace")
    broken = "Traceback" in complaint or complaint.count("charlstm: ") > 1 or process.returncode not in (0, 1, 2)
    broken |= guarded(folder) != before or any(p.read_bytes() != data for p, data in both)
    broken |= bool(list((folder / "work").rglob("*.tmp")))
    kept = (
        path.is_symlink()
        if "link" in kind and kind != "hard link"
        else stat.S_ISFIFO(path.lstat().st_mode)
        if fifo
        else True
    )
    kept |= row == "train -> best"  # the old best model, or the link to it, is removed
    broken |= not kept or (kind == "link to a good one" and not target.exists())
    if kind == "foreign link" and row in ("sample --output", "info --plot", "export -> file"):
        precious = folder / "elsewhere/precious"  # the user named the link, and what it leads to is replaced
        broken = process.returncode != 0 or precious.read_bytes() == PRECIOUS or not kept
    if broken:
        print(f"{row}, {kind}: {process.returncode} {complaint[-400:]}", file=sys.stderr)
    return str(process.returncode) + "!" * broken


def other_end(path: Path, content: bytes, process: subprocess.Popen[bytes]) -> None:
    """Write to whoever reads a FIFO, or read what is written to it."""
    while process.poll() is None:
        time.sleep(0.05)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb") as file:  # fails unless somebody reads
                file.write(content)
                return
        except OSError:
            pass
        if path.name.startswith("out."):
            with open(path, "rb") as file:
                file.read()
            return


def ordinary() -> None:
    """Give up what lets root read and write everything, for this process and those that it starts (Linux)."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def main() -> None:
    """Print the table, and end with status 1 if anything was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.special")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these rows")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th cell")
    options = parser.parse_args()
    rows, number = [row for row in ROWS if not options.rows or row in options.rows], itertools.count()
    os.environ |= {
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    bad = tried = 0
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        root = Path(name)
        template = root / "template"
        (template / "work/checkpoints").mkdir(parents=True)
        (template / "elsewhere").mkdir()
        (template / "elsewhere/precious").write_bytes(PRECIOUS)
        text = template / "work/text.txt"
        text.write_text(TEXT, encoding="utf-8")
        found = corpus.read([str(text)])
        run, _ = state.begin(found, TrainConfig(hidden=6, batch=2, seq=8))
        run.schedule.end(6, 2, 16, 100)
        for _ in loop.train(run, *found.split(0.1)):
            pass
        object.__setattr__(run.text, "sources", ("text.txt",))
        checkpoint.save_run(template / "work/checkpoints/r.npz", run)
        checkpoint.save_model(template / "work/checkpoints/r.best.npz", run)
        print(f"{'':20}" + "".join(f"{kind:>20}" for kind in KINDS))
        for row in rows:
            cells = []
            for kind in KINDS:
                cells.append("" if next(number) % options.every else cell(root, template, row, kind))
                for path in root.iterdir():
                    if path != template:
                        shutil.rmtree(path, ignore_errors=True)
            bad += sum("!" in shown for shown in cells)
            tried += sum(shown != "" for shown in cells)
            print(f"{row:20}" + "".join(f"{shown:>20}" for shown in cells), flush=True)
    print(f"{len(ROWS)} uses of a file x {len(KINDS)} kinds, {tried} of them tried: {bad} broke a promise")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
