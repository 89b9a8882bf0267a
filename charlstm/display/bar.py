"""A tqdm progress bar, the most compact display."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from charlstm import events
from charlstm.display import cells, formatting, lines
from charlstm.display.base import Display

EVERY_S = 0.5
NAME_COLUMNS, BAR_COLUMNS = 20, 12
"""Maximum width of a run's name, and minimum width of the bar: what is least needed is omitted to make room for it."""
REDRAW = "\r\x1b[J"
"""Clears the bar. The cursor rests at its start, which a terminal moves with it if a narrower window makes it wrap."""


class BarDisplay(Display):
    """A bar of steps, followed by the loss; all other events are printed above it."""

    def __init__(self, stream: TextIO, width: Callable[[], int] | None = None) -> None:
        self.stream = stream
        self.width = width or self._width
        self.on_terminal = stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self.ascii = not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        self.started: events.Started | None = None
        self.progress: events.Progress | None = None
        self.val_nats: float | None = None
        self.shown = ""  # the bar on the screen
        self.next_s = 0.0

    def close(self) -> None:
        """Leave the bar's line."""
        if self.shown:
            self.shown = ""
            self._write("\n")

    suspend = close

    def show(self, event: events.Event) -> None:
        """Update the bar, or print lines above it."""
        match event:
            case events.Started():
                self.started = event
                self._print(lines.started(event))
            case events.Progress():
                self.progress = event
                if event.elapsed_s >= self.next_s or event.step == event.steps:
                    self.next_s = event.elapsed_s + EVERY_S
                    self._draw()
            case events.Evaluated():
                self.val_nats = event.val_nats
            case events.SaveFailed():
                self._print([formatting.unsaved(event.reason)])
            case events.Diverged():
                self._print([f"step {event.step}: diverged: {event.reason}"])
            case events.Recovered():
                self._print([f"step {event.step}: back to the last good weights, rate {event.lr:.3g}"])
            case events.Finished():
                self._draw()
                self.close()
                self._print(lines.finished(event))
            case _:
                pass

    def _draw(self) -> None:
        if self.progress is None:
            return
        line = self._bar(self.progress, self.width() - 1)
        clear = REDRAW if self.on_terminal else "\r"
        padding = "" if self.on_terminal else " " * (len(self.shown) - len(line))
        self.shown = line
        self._write(f"{clear}{line}{padding}" + "\r" * self.on_terminal)

    def _bar(self, p: events.Progress, width: int) -> str:
        """Return the bar in `width` cells, with as many of the numbers as leave it wide enough."""
        name = cells.fit(self.started.run if self.started else "", min(NAME_COLUMNS, width // 4))
        numbers = [  # with the order in which they are omitted
            (2, f"step {p.step}" + (f"/{p.steps}" if p.steps else "")),
            (3, f"{formatting.duration(p.elapsed_s)} gone"),
            (5, f"{formatting.duration(p.remaining_s)} left"),
            (4 if self.val_nats is not None else 6, f"loss {p.loss_nats:.3f}"),
            (6, "" if self.val_nats is None else f"held-out {self.val_nats:.3f}"),
            (1, f"{formatting.count(p.chars_per_s)} chars/s"),
        ]
        for least in range(1, 8):
            text = ", ".join(number for order, number in numbers if number and order >= least)
            if cells.width(name) + len(text) + len(": 100%|| ") + BAR_COLUMNS <= width:
                break
        bar_format = "{desc}: {percentage:3.0f}%|{bar}| " + text
        return tqdm.format_meter(
            p.step, p.steps or 0, p.elapsed_s, ncols=width, prefix=name, ascii=self.ascii, bar_format=bar_format
        )

    def _print(self, lines: list[str]) -> None:
        """Print lines above the bar, broken between words on a terminal."""
        if self.shown:
            self._write(REDRAW if self.on_terminal else "\n")
        for line in map(formatting.inline, lines):
            self._write(
                "\n".join(cells.wrap(cells.sanitize(line), self.width()) if self.on_terminal else [line]) + "\n"
            )
        if self.shown:
            self._draw()

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _width(self) -> int:
        """Return the width of the terminal, or what COLUMNS says."""
        if self.stream.isatty() and "COLUMNS" not in os.environ:
            try:
                return os.get_terminal_size(self.stream.fileno()).columns or 80
            except OSError:
                pass
        return shutil.get_terminal_size().columns
