"""A cron job as users write it, many times in a row: does it run with nothing around it, log, end, and do its work only once?

    python -m tests.experiments.cron [--times 20]

There is no terminal, the environment holds PATH=/usr/bin:/bin and HOME=/nonexistent and nothing else, and standard input is by turns closed, and open
and silent. The first job is stopped in the middle, as by a machine that is switched off; the next one goes on, and all others have nothing left to do: they
end with status 0, leave a log, and change no byte. POSIX only.
"""

from __future__ import annotations

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(sys.executable).with_name("charlstm")
PROGRAM = [str(SCRIPT)] if SCRIPT.exists() else ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "charlstm"]
BARE = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/nonexistent"]
LONGEST_S = 120


def job(folder: Path, steps: int, silent: bool) -> subprocess.Popen[bytes]:
    """The job, as a line of a crontab has it: standard input silent, or closed."""
    line = shlex.join(
        [
            *BARE,
            *PROGRAM,
            "train",
            str(folder / "text.txt"),
            "--steps",
            str(steps),
            "--hidden",
            "32",
            "--if-exists",
            "resume",
        ]
    )
    line += f" --save-every 0.1 --display auto >> {folder / 'log'} 2>&1" + ("" if silent else " <&-")
    return subprocess.Popen(
        ["/bin/sh", "-c", f"cd {folder} && exec {line}"], stdin=subprocess.PIPE, start_new_session=True
    )


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All that there is in the folder of runs, and when it was changed."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "checkpoints").glob("*.npz")}


def main(argv: list[str] | None = None) -> None:
    """Run them, compare, count, and end with status 1 if any went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.cron")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args(argv)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        folder = Path(name)
        (folder / "text.txt").write_text(
            "".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000)), encoding="utf-8"
        )
        first = job(folder, options.steps, silent=True)
        while first.poll() is None and not state(folder):
            time.sleep(0.01)
        first.kill()
        first.communicate()
        before: dict[str, tuple[bytes, int]] = {}
        for number in range(options.times):
            logged = (folder / "log").stat().st_size
            process = job(folder, options.steps, silent=number % 2 == 0)
            try:
                status = process.wait(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                process.kill()
                status = -1
            process.communicate()
            log = (folder / "log").read_bytes()[logged:].decode()
            after = state(folder)
            for what, well in (
                (f"it ended with {status}", status == 0),
                ("it logged no end", " at step " in log and log.endswith("text.best.npz\n")),
                ("its log is not plain", not any(c in log for c in "\x1b\r") and "Traceback" not in log),
                ("it changed what was finished", number == 0 or after == before),
                ("it left no run", len(after) == 2),
            ):
                if not well:
                    wrong.append(f"job {number + 1}: {what}: {log[-300:]}")
            before = after
        extra = {path.name for path in folder.iterdir()} - {"text.txt", "log", "checkpoints"}
        if extra:
            wrong.append(f"files were left: {extra}")
    for what in wrong:
        print(what)
    print(f"{options.times} jobs, one after the other: {len(wrong)} things went wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
