"""Keys typed while the Live screen is on: `q` stops as Ctrl-C does, and the shell gets none of them afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import IO, Any, TextIO

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

QUIT = b"qQ"
LOCAL_FLAGS = 3
"""Index of the local flags in the attributes that `termios.tcgetattr` returns."""


class Keyboard:
    """The terminal on standard input, read key by key and without echo between `open` and `close`.

    It does nothing if standard input is no terminal, or while the process is in the background, where touching the
    terminal would suspend it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.file = -1
        self.before: list[Any] | None = None  # the attributes to restore; None while closed
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if termios is not None and stream is not None and stream.isatty():
                self.file = stream.fileno()

    def __bool__(self) -> bool:
        """Whether there is a terminal to read keys from."""
        return self.file >= 0

    def poll(self) -> None:
        """Read the keys typed so far, and raise SIGINT in this process if `q` is among them."""
        if not self or not in_foreground(self.file):
            return
        try:
            self._open()
            typed = b""
            if select.select([self.file], [], [], 0)[0]:
                typed = os.read(self.file, 4096)
                self.file = self.file if typed else -1  # nothing to read although there is: the terminal hung up
        except (OSError, ValueError, termios.error):  # the terminal hung up
            self.file = -1
            return
        if set(typed) & set(QUIT):
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None:
        """Restore the terminal and discard what was typed, so that the shell does not execute it."""
        if self.before is None:
            return
        before, self.before = self.before, None
        with contextlib.suppress(OSError, termios.error):
            if in_foreground(self.file):
                termios.tcsetattr(self.file, termios.TCSAFLUSH, before)

    def _open(self) -> None:
        if self.before is not None:
            return
        self.before = termios.tcgetattr(self.file)
        own = termios.tcgetattr(self.file)
        own[LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C and Ctrl-Z still send their signals
        termios.tcsetattr(self.file, termios.TCSAFLUSH, own)


def in_foreground(terminal: int | IO[str]) -> bool | None:
    """Return whether this process is in the foreground of a terminal; None if it is not the terminal that controls it."""
    try:
        file = terminal if isinstance(terminal, int) else terminal.fileno()
        return os.tcgetpgrp(file) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return None
