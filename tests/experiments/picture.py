"""The README's picture: the Live screen of a real training run, through Rich's own SVG export.

python -m tests.experiments.picture                                    writes docs/screen.svg, after a minute of training
python -m tests.experiments.picture --seconds 20 --of 40 --to x.svg    sooner, elsewhere
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path

from charlstm import blas

blas.prepare()

from rich.console import Console  # noqa: E402
from rich.terminal_theme import SVG_EXPORT_THEME  # noqa: E402

from charlstm import events, launch  # noqa: E402
from charlstm.display import screen  # noqa: E402
from charlstm.display.live import KEYS  # noqa: E402
from charlstm.display.view import RunView  # noqa: E402
from charlstm.settings import Budget, RunOptions, TrainRequest  # noqa: E402
from charlstm.training.control import Stop  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
COLUMNS, ROWS = 100, 24
WRITTEN_CHARS = 300
"""The picture is taken once so much of a sample was written, where a line ends."""


def watch(text: str, seconds: float, whole_s: float) -> RunView:
    """Train on a text for a whole time, and stop when so many seconds of it are gone and a sample is there to be seen."""
    stop, run = Stop(), RunView()
    run.footer = KEYS
    options = RunOptions(preview_every_s=10.0, stream_preview=True, threads=blas.cores())
    with tempfile.TemporaryDirectory() as folder:
        begun = launch.start(
            TrainRequest((text,), budget=Budget(minutes=whole_s / 60), options=options, folder=Path(folder)), stop
        )
        for event in begun.run():
            if isinstance(event, events.Finished):
                break
            if stop.reason is None:
                run.take(event)
                if event.elapsed_s >= seconds and run.samples and len(run.samples[-1].text) >= WRITTEN_CHARS:
                    stop.reason = "SIGINT"
    return run


def picture(run: RunView) -> str:
    """The screen as SVG."""
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, height=ROWS, force_terminal=True, color_system="standard"
    )
    for line in screen.draw(run, COLUMNS, ROWS):
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title="charlstm train", theme=SVG_EXPORT_THEME, unique_id="screen")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # a page must not fetch fonts for a picture


def main() -> None:
    """Train, and write the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", default="fables")
    parser.add_argument("--seconds", type=float, default=60.0, help="when the picture is taken")
    parser.add_argument("--of", type=float, default=100.0, help="how long the training is meant to take")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "screen.svg")
    args = parser.parse_args()
    svg = picture(watch(args.text, args.seconds, args.of))
    args.to.write_text(svg, encoding="utf-8")
    print(f"{args.to}: {len(svg.encode()):,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
