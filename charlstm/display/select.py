"""Opens the display that suits the terminal, and shields training from a stream that fails."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from charlstm.display.base import Display
from charlstm.display.keyboard import in_foreground
from charlstm.events import Event
from charlstm.settings import DisplayKind


class BestEffortDisplay(Display):
    """Wraps a display so that training survives the loss of its stream: a closed pipe, a terminal that hung up, a full disk."""

    def __init__(self, display: Display, stream: TextIO) -> None:
        self.display, self.stream = display, stream
        self.stream_preview = display.stream_preview
        self.lost: OSError | None = None  # why the stream takes nothing any more

    def suspend(self) -> None:
        """Give the terminal back while the process is suspended."""
        with contextlib.suppress(OSError):
            self.display.suspend()

    def close(self) -> None:
        """Give the terminal back for good."""
        with contextlib.suppress(OSError):
            self.display.close()

    def show(self, event: Event) -> None:
        """Show the event, unless the stream is lost."""
        if self.lost is not None:
            return
        try:
            self.display.show(event)
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(
                nowhere, self.stream.fileno()
            )  # Python flushes what is still buffered at exit, and would fail again
            os.close(nowhere)


def choose_kind(kind: DisplayKind, stderr: TextIO) -> DisplayKind:
    """Resolve ``auto``, and ``live`` where it is impossible: the Live screen on a terminal that can draw it, plain lines elsewhere.

    A job that a shell started in the background gets lines, too, because the terminal is the shell's.
    """
    if kind not in ("auto", "live"):
        return kind
    utf = (getattr(stderr, "encoding", None) or "utf-8").lower().startswith("utf")
    drawable = stderr.isatty() and utf and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return "live" if drawable and in_foreground(stderr) is not False else "lines"


def open_display(kind: DisplayKind, stdout: TextIO, stderr: TextIO) -> BestEffortDisplay:
    """Open a display of this kind, importing no other."""
    return BestEffortDisplay(_open(choose_kind(kind, stderr), stdout, stderr), stdout if kind == "json" else stderr)


def _open(kind: DisplayKind, stdout: TextIO, stderr: TextIO) -> Display:
    if kind == "live":
        from charlstm.display.keyboard import Keyboard
        from charlstm.display.live import LiveDisplay

        return LiveDisplay(stderr, keyboard=Keyboard(sys.stdin))
    if kind == "bar":
        from charlstm.display.bar import BarDisplay

        return BarDisplay(stderr)
    if kind == "json":
        from charlstm.display.jsonl import JsonDisplay

        return JsonDisplay(stdout)
    from charlstm.display.lines import LinesDisplay

    return LinesDisplay(stderr, silent=kind == "none")
