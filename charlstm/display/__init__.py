"""Consumers of events: each shows a run in its own way, writes to the stream it was given, and knows nothing of models."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Protocol, TextIO

from charlstm.events import Event
from charlstm.settings import DisplayKind


class Display(Protocol):
    """What the command line needs of a display; a context manager, so that the terminal is always given back."""

    stream_preview: bool
    """Whether previews should come piece by piece."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Take note of an event, and draw if it is time to."""


def choose_kind(kind: DisplayKind, stderr: TextIO) -> DisplayKind:
    """What ``auto`` means here: the Live screen on a terminal that can draw one; plain lines elsewhere, whatever was asked for."""
    if kind not in ("auto", "live"):
        return kind
    utf = (getattr(stderr, "encoding", None) or "utf-8").lower().startswith("utf")
    drawable = stderr.isatty() and utf and os.environ.get("TERM", "") not in ("dumb", "unknown")
    return "live" if drawable else "lines"


def open_display(kind: DisplayKind, stdout: TextIO, stderr: TextIO) -> Display:
    """The display of that kind. Only what it needs is imported."""
    kind = choose_kind(kind, stderr)
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
