"""The Live screen of a run in training, painted at a bounded cost, and the summary that it leaves behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from charlstm import events
from charlstm.display import cells, formatting, lines, screen
from charlstm.display.base import Display
from charlstm.display.keyboard import Keyboard, in_foreground
from charlstm.display.painter import Painter
from charlstm.display.view import RunView, Sample

MIN_FRAME_S, POLL_S, REPAIR_S = 0.1, 0.1, 60.0
"""Seconds between frames, at least; between two looks at the keyboard; and between frames that write the whole screen, because
another program may have written on it."""
SHARE = 0.008
"""Drawing takes at most this share of the time: the pause after a frame is proportional to the time it took."""
KEYS = "q or Ctrl-C: save and stop    Ctrl-Z: suspend"
"""The footer if there is a keyboard."""
KEPT_LINES, KEPT_COLUMNS, KEPT_CHARS = 5, 100, 160
"""The summary has at most this many lines of a sample, of at most this width; the sample has this many characters if any has."""
DEFAULT_FOLDER = "checkpoints"
"""The folder in which commands look for a run by default."""


class LiveDisplay(Display):
    """Draws a run in training on the alternate screen of a terminal.

    The main screen therefore returns unchanged at the end, however often the window was resized.
    """

    stream_preview = True

    def __init__(
        self, stream: TextIO, clock: Callable[[], float] = time.monotonic, keyboard: Keyboard | None = None
    ) -> None:
        self.console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self.painter = Painter(self.console)
        self.clock = clock
        self.keyboard = keyboard or Keyboard(None)
        self.run = RunView()
        if self.keyboard:
            self.run.footer = KEYS
        self.frames = 0
        self.size = (0, 0)  # of the last frame; none while the screen is not open
        self.next_s = self.next_poll_s = self.next_repair_s = 0.0

    def show(self, event: events.Event) -> None:
        """Record the event, draw a frame if one is due, and read the keyboard."""
        self.run.take(event)
        if isinstance(event, events.Finished):
            self.close()
            self._summarise(event)
        elif not isinstance(event, events.Started):  # which may be followed by Finished at once
            if (now := self.clock()) >= self.next_poll_s:  # before the first frame, which says which keys there are
                self.next_poll_s = now + POLL_S
                self.keyboard.poll()
            self._draw()

    def _draw(self) -> None:
        now = self.clock()
        if now < self.next_s:
            return
        if self.size == (0, 0) and in_foreground(self.console.file) is False:
            return  # it goes on in the background (Ctrl-Z, then bg): the terminal is the shell's
        self._paint(now)
        self.frames += 1
        done = self.clock()
        self.next_s = done + max(MIN_FRAME_S, (done - now) / SHARE)

    def _paint(self, now: float) -> None:
        width, height = size = self.console.size
        if self.size == (0, 0):
            self.console.set_alt_screen(True)
            self.console.show_cursor(False)
        if size != self.size or now >= self.next_repair_s:
            self.painter.forget(clear=size != self.size)
            self.next_repair_s = now + REPAIR_S
        self.size = size
        self.painter.paint(screen.draw(self.run, width, height))

    def close(self) -> None:
        """Give the terminal back; the next frame would take it over again."""
        self.keyboard.close()
        if self.size == (0, 0):
            return
        self.size = (0, 0)
        self.console.control(Control(ControlType.HOME, ControlType.CLEAR))  # for terminals without an alternate screen
        self.console.set_alt_screen(False)
        self.console.show_cursor(True)

    suspend = close

    def _summarise(self, event: events.Finished) -> None:
        """Print what the model wrote last, how training ended, and what to type next."""
        for line in _kept_sample(self.run.samples, self.console.width):
            self.console.print(line, soft_wrap=True)
        for row in filter(None, _summary(self.run, event)):
            self.console.print(Text(formatting.inline(row)), soft_wrap=True)


def _kept_sample(samples: list[Sample], width: int) -> list[Text]:
    """Return the beginning of the last sample that is long enough, or of the last one, below its step."""
    if not samples:
        return []
    sample = next((s for s in reversed(samples) if len(s.text) >= KEPT_CHARS), samples[-1])
    room = min(width, KEPT_COLUMNS) - 2
    prompt = Text("> " + cells.fit(sample.prompt.strip(), room), "dim")
    body = [line for line in cells.wrap(screen.written(sample), room) if line.strip()]
    lines = [Text(f"it wrote at step {sample.step:,}:", "dim"), *[prompt] * bool(sample.prompt.strip())]
    return [*lines, *(Text("  " + line) for line in body[:KEPT_LINES]), Text()]


def _summary(run: RunView, event: events.Finished) -> list[str]:
    """Return how training ended and what to type next; empty lines are to be left out."""
    s = run.started
    rows = [
        f"{s.run if s else 'training'} {lines.ending(event)} at step {event.step:,} in {formatting.duration(event.elapsed_s)}",
        lines.best_loss(event) or _training_loss(run, event),
        f"model saved in {event.path}",
        f"note: {run.message}" if run.trouble else "",
        f"note: {event.hint}" if event.hint else "",
    ]
    if s:
        name = shlex.quote(s.run)
        folder = str(Path(s.path).parent)
        where = "" if folder == DEFAULT_FOLDER else f" --checkpoints {shlex.quote(folder)}"
        rows += [
            f"write text:  charlstm sample {name}{where} --temp 0.8",
            f"train on:    charlstm resume {name}{where} --minutes 5",
            f"look at it:  charlstm info {name}{where}",
        ]
    return rows


def _training_loss(run: RunView, event: events.Finished) -> str:
    """Describe the training loss at the last evaluation, or the one on the screen if there was none yet."""
    if event.loss_nats is not None:
        return f"training loss {formatting.loss(event.loss_nats)}"
    return "" if run.smooth is None else f"training loss {formatting.loss(run.smooth)}, before the first evaluation"
