"""Consumers of events: each shows a run in its own way, writes to the stream it was given, and knows nothing of models."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

from charlstm.display.base import Display
from charlstm.events import Event
from charlstm.settings import DisplayKind


class Surviving(Display):
    """A display whose stream may go away: a pipe that is closed, a terminal that hangs up, a log on a full disk. Training goes on without it."""

    def __init__(self, display: Display, stream: TextIO) -> None:
        self.display, self.stream = display, stream
        self.stream_preview = display.stream_preview
        self.gone = False

    def rest(self) -> None:
        """Let the display give the terminal back."""
        with contextlib.suppress(OSError):
            self.display.rest()

    def close(self) -> None:
        """Let the display give the terminal back for good."""
        with contextlib.suppress(OSError):
            self.display.close()

    def show(self, event: Event) -> None:
        """Let the display show it, while there is somewhere to show it."""
        if self.gone:
            return
        try:
            self.display.show(event)
        except OSError:
            self.gone = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())  # for what is still held back, which Python writes in the end
            os.close(nowhere)


def choose_kind(kind: DisplayKind, stderr: TextIO) -> DisplayKind:
    """What ``auto`` means here: the Live screen on a terminal that can draw one; plain lines elsewhere, whatever was asked for."""
    if kind not in ("auto", "live"):
        return kind
    utf = (getattr(stderr, "encoding", None) or "utf-8").lower().startswith("utf")
    drawable = stderr.isatty() and utf and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return "live" if drawable else "lines"


def open_display(kind: DisplayKind, stdout: TextIO, stderr: TextIO) -> Surviving:
    """The display of that kind. Only what it needs is imported."""
    return Surviving(_open(choose_kind(kind, stderr), stdout, stderr), stdout if kind == "json" else stderr)


def _open(kind: DisplayKind, stdout: TextIO, stderr: TextIO) -> Display:
    if kind == "live":
        from charlstm.display.live import LiveDisplay

        return LiveDisplay(stderr)
    if kind == "bar":
        from charlstm.display.bar import BarDisplay

        return BarDisplay(stderr)
    if kind == "json":
        from charlstm.display.jsonl import JsonDisplay

        return JsonDisplay(stdout)
    from charlstm.display.lines import LinesDisplay

    return LinesDisplay(stderr, silent=kind == "none")
