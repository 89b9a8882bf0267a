"""The time that training takes, on a clock that stands still while the process is stopped; and what is asked of a run from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class Clock:
    """Seconds, counted up as `time.monotonic` does, but for those in which the process was stopped (Ctrl-Z, SIGSTOP).

    A process can't know when it was stopped, only that it goes on: what has gone since the last reading is then left out. Whoever
    trains reads the clock at every step, so no more than a part of a step is lost by it.
    """

    def __init__(self) -> None:
        self.read_s = time.monotonic()
        self.left_out_s = 0.0

    def __call__(self) -> float:
        """The time now."""
        self.read_s = time.monotonic()
        return self.read_s - self.left_out_s

    def go_on(self) -> None:
        """Leave out what has gone since the last reading; for when the process goes on after it was stopped (SIGCONT)."""
        before_s, self.read_s = self.read_s, time.monotonic()
        self.left_out_s += self.read_s - before_s


@dataclass
class Stop:
    """Set from outside (a signal handler) to end training after the step in progress, or to save or rest then; and the clock, which it corrects."""

    reason: str | None = None
    save: bool = False
    rest: bool = False  # whoever drives the run stops the process
    clock: Clock = field(default_factory=Clock)
    heard: bool = False  # whether there is a run yet that would end by it
