"""The Live screen of a run in training, painted at a bounded cost, and the summary that it leaves behind."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from charlstm import events
from charlstm.display import formatting, lines, screen
from charlstm.display.base import Display
from charlstm.display.view import RunView

MIN_FRAME_S = 0.1
SHARE = 0.008
"""Drawing takes at most this share of the time: the pause after a frame is proportional to the time it took."""
DEFAULT_FOLDER = "checkpoints"
"""The folder in which commands look for a run by default."""


class LiveDisplay(Display):
    """Draws a run in training on the alternate screen of a terminal.

    The main screen therefore returns unchanged at the end, however often the window was resized.
    """

    stream_preview = True

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self.clock = clock
        self.run = RunView()
        self.frames = 0
        self.size = (0, 0)  # of the last frame; none while the screen is not open
        self.next_s = 0.0

    def show(self, event: events.Event) -> None:
        """Record the event, and draw a frame if one is due."""
        self.run.take(event)
        if isinstance(event, events.Finished):
            self.close()
            self._summarise(event)
        elif not isinstance(event, events.Started):  # which may be followed by Finished at once
            self._draw()

    def _draw(self) -> None:
        now = self.clock()
        if now < self.next_s:
            return
        self._paint()
        self.frames += 1
        done = self.clock()
        self.next_s = done + max(MIN_FRAME_S, (done - now) / SHARE)

    def _paint(self) -> None:
        width, height = size = self.console.size
        frame = [_control((ControlType.HOME,))]
        if size != self.size:
            if self.size == (0, 0):
                self.console.set_alt_screen(True)
                self.console.show_cursor(False)
            self.size = size
            frame.append(_control((ControlType.CLEAR,)))
        for number, line in enumerate(screen.draw(self.run, width, height)):
            frame += [Segment("\n")] * (number > 0) + [_control((ControlType.ERASE_IN_LINE, 2))]
            frame += line.render(self.console)
        self.console.print(Segments(frame), end="", crop=False)

    def close(self) -> None:
        """Give the terminal back; the next frame would take it over again."""
        if self.size == (0, 0):
            return
        self.size = (0, 0)
        self.console.control(Control(ControlType.HOME, ControlType.CLEAR))  # for terminals without an alternate screen
        self.console.set_alt_screen(False)
        self.console.show_cursor(True)

    suspend = close

    def _summarise(self, event: events.Finished) -> None:
        """Print how training ended, and what to type next."""
        s = self.run.started
        told = [
            f"{s.run if s else 'training'} {lines.ending(event)} at step {event.step:,} in {formatting.duration(event.elapsed_s)}",
            lines.best_loss(event) or f"training loss {formatting.loss(event.loss_nats)}",
            f"model saved in {event.path}",
            f"note: {self.run.message}" if self.run.trouble else "",
            f"note: {event.hint}" if event.hint else "",
        ]
        if s:
            run = shlex.quote(s.run)
            folder = str(Path(s.path).parent)
            where = "" if folder == DEFAULT_FOLDER else f" --checkpoints {shlex.quote(folder)}"
            told += [
                f"write text:  charlstm sample {run}{where} --temp 0.8",
                f"train on:    charlstm resume {run}{where} --minutes 5",
                f"look at it:  charlstm info {run}{where}",
            ]
        for line in filter(None, told):
            self.console.print(Text(formatting.visible(line)), soft_wrap=True)


def _control(*codes: tuple[ControlType] | tuple[ControlType, int]) -> Segment:
    return Control(*codes).segment
