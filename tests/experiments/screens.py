"""The Live screen as a real terminal (tmux) shows it, kept as text at the usual size.

python -m tests.experiments.screens             writes tests/data/screen.txt, of 80x24
python -m tests.experiments.screens 120 24      prints it at another size
"""

from __future__ import annotations

import argparse
import io
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console

from charlstm import events
from charlstm.display import screen
from charlstm.display.live import KEYS, LiveDisplay
from charlstm.display.view import RunView

SIZES = ((60, 20), (80, 24), (120, 24), (120, 40), (200, 50), (80, 15))
MOMENTS = {
    60: "tthe aotd  ehe oaie tan",
    240: "The Wolf sad the Was and the bead of the for\nand the sas",
    600: "A Crow was a great way off, and the Fox\nsaid to the Lion that he had been there before.",
}
"""Step and text of the earlier samples."""
ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / "tests" / "data" / "screen.txt"
STEPS, HERE = 3000, 1200
PROMPT = "The Fox and the Grapes\n"
SAMPLE = (
    "A Fox one day spied a bunch of ripe grapes [bold]hanging[/bold] from a vine trained along the branches of a tree.\n"
    "\x1b[31mred\x1b]0;title\x07 \u202eevil \x9b2J 漢字かな交じり文 한국어 e\u0301 q\u0301 \u0301 हिन्दी สวัสดี\n"
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3 zero\u200bwidth\ttab\n"
    "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字\n"
    "The grapes seemed ready to burst with juice, and the Fox's mouth wat"
)


def story() -> Iterator[events.Event]:
    """A run that is two fifths done, and writes what is hard to show."""
    yield events.Started(
        0, STEPS, 0.0, 0.0, run="my-fables", path="checkpoints/my-fables.npz", resumed=False, text="fables.txt", chars=194_000,
        val_chars=19_400, vocabulary=65, hidden=256, layers=2, parameters=872_000, memory_bytes=10**8, batch=32, seq=64,
        optimizer="adam", lr=0.006, clip=1.0, uniform_nats=math.log(65), unigram_nats=3.06, val_nats=None, best_val_nats=None,
        notes=("2x256 with dropout 0.2 suits 194,000 characters and 5 minutes at the pace of this machine",),
    )  # fmt: skip
    for step in range(1, HERE + 1):
        elapsed = step / 15
        yield events.Progress(
            step, STEPS, step / 85, elapsed, 1.35 + 2.8 * math.exp(-step / 120) + 0.05 * math.sin(step), 0.42, 2.1e-3,
            40 + step / 20, 5 + step / 100, 0.03, 0.006 * math.cos(step / STEPS), 30_700.0, (STEPS - step) / 15,
        )  # fmt: skip
        if step in MOMENTS:
            yield events.Sampled(step, STEPS, step / 85, elapsed, MOMENTS[step], True, PROMPT)
        if step % 150 == 0:
            val = 1.52 + 1.6 * math.exp(-step / 200)
            yield events.Evaluated(step, STEPS, step / 85, elapsed, val - 0.1, val, val, 1.896, 5)
    where = {"step": HERE, "steps": STEPS, "epoch": HERE / 85, "elapsed_s": HERE / 15}
    yield events.Sampled(**where, text=SAMPLE[:150], new=True, prompt=PROMPT)
    yield events.Sampled(**where, text=SAMPLE[150:], new=False)


def drawn(columns: int, rows: int) -> str:
    """The screen after the story, as Rich renders it."""
    run = RunView()
    run.footer = KEYS
    for event in story():
        run.take(event)
    console = Console(file=io.StringIO(), width=columns, height=rows, color_system=None)
    with console.capture() as capture:
        for line in screen.draw(run, columns, rows):
            console.print(line, soft_wrap=True)
    return _tidy(capture.get().split("\n"))


def shown(columns: int, rows: int) -> str:
    """The screen after the story, as tmux shows it."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        command = shlex.join([sys.executable, "-m", __spec__.name, "--ready", str(ready)])
        tmux = ["tmux", "-f", os.devnull, "-S", f"{folder}/tmux"]
        size = ["-x", str(columns), "-y", str(rows)]
        environment = {k: v for k, v in os.environ.items() if k not in ("TMUX", "COLUMNS", "LINES", "NO_COLOR")}
        environment |= {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
        no_status_line = ["start-server", ";", "set", "-g", "status", "off", ";"]
        start = [*tmux, "-u", *no_status_line, "new-session", "-d", *size, command]
        subprocess.run(start, check=True, cwd=ROOT, env=environment)
        try:
            deadline = time.monotonic() + 60
            while not ready.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError("the screen was not drawn within a minute")
                time.sleep(0.05)
            got = subprocess.run(
                [*tmux, "capture-pane", "-p"], check=True, capture_output=True, encoding="utf-8", env=environment
            )
        finally:
            subprocess.run([*tmux, "kill-server"], check=False, env=environment)
    return _tidy(got.stdout.split("\n"))


def _tidy(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"


def tell(stream: TextIO) -> LiveDisplay:
    """Show the story on a stream at ten times its pace, and its end in any case; the screen is left open."""
    now = 0.0
    display = LiveDisplay(stream, clock=lambda: now)
    display.run.footer = KEYS
    *most, last = story()
    for event in most:
        now = event.elapsed_s / 10
        display.show(event)
    now += 1.0
    display.show(last)
    return display


def _show(ready: Path) -> None:
    """Show the story on this terminal, and say so in a file once the terminal has drawn all of it."""
    import tty

    tty.setcbreak(0)
    tell(sys.stderr)
    os.write(2, b"\x1b[6n")  # a terminal answers this when it comes to it
    answer = b""
    while not answer.endswith(b"R"):
        answer += os.read(0, 1)
    ready.touch()
    time.sleep(60)


def main() -> None:
    """Write the screen, or print it at another size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int, nargs="*")
    parser.add_argument("--ready", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ready:
        _show(args.ready)
    elif args.size:
        print(shown(*args.size), end="")
    else:
        KEPT.write_text(shown(80, 24), encoding="utf-8")


if __name__ == "__main__":
    main()
