"""What signals ask of the program, and the handlers that are set meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from charlstm import launcher
from charlstm.errors import SIGNALS
from charlstm.training.control import Stop

WAKE_S = 0.25
"""Seconds between interruptions of a wait, so that a signal that came just before the wait is handled."""


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Within this context, SIGTERM and SIGHUP exit the program as Ctrl-C does, with cleanup and without a message."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(SIGNALS[signal.Signals(number).name])

    with handlers_set(dict.fromkeys(("SIGTERM", "SIGHUP"), leave)):
        yield


@contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """Within this context, a signal asks training to stop after the current step; a second SIGINT exits at once.

    While the text is still being read there is nothing to save, so the first signal exits. SIGUSR1 asks for a save,
    SIGTSTP suspends the process, and SIGCONT corrects the clock.
    """

    def ask(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not stop.armed or stop.reason == name == "SIGINT":
            raise SystemExit(SIGNALS[name])
        stop.reason = name

    def save(number: int, frame: FrameType | None) -> None:
        stop.save = True

    def suspend(number: int, frame: FrameType | None) -> None:
        stop.suspend = stop.armed  # the display must give the terminal back first
        if not stop.armed:
            stop_process()

    def resume(number: int, frame: FrameType | None) -> None:
        stop.clock.resume()
        if launcher.ranks > 1:  # Open MPI sends this, SIGTERM and SIGKILL at intervals of a quarter of a second
            stop.save = True

    own = {"SIGUSR1": save, "SIGCONT": resume, "SIGTSTP": suspend}
    with handlers_set(own | dict.fromkeys(SIGNALS, ask)):
        yield


@contextmanager
def handlers_set(handlers: Mapping[str, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Within this context, use these signal handlers, given by signal name.

    Signals that the system does not have, or that are ignored (nohup), are left alone. Python checks for signals
    before it waits for a pipe or a key, and again when a signal interrupts the wait; one that arrives in between would
    be handled only when there is something to read. So an alarm interrupts every wait after at most `WAKE_S` seconds.
    """
    before: dict[int, Any] = {}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    wakes = hasattr(signal, "setitimer") and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    # An alarm that is set already is to end the program, as `alarm` in Perl does.
    wakes = wakes and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    if wakes:
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.setitimer(signal.ITIMER_REAL, WAKE_S, WAKE_S)
    try:
        yield
    finally:
        if wakes:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_process() -> None:
    """Suspend the process as an unhandled SIGTSTP would; returns when the process continues."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)
