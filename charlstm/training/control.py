"""A clock that excludes time spent suspended, and the requests that signals make of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class Clock:
    """Seconds like those of `time.monotonic`, excluding time in which the process was suspended (Ctrl-Z, SIGSTOP).

    A process learns when it continues but not when it was suspended, so the time since the last reading is excluded.
    Training reads the clock at every step, so this loses at most part of a step.
    """

    def __init__(self) -> None:
        self.read_s = time.monotonic()
        self.left_out_s = 0.0

    def __call__(self) -> float:
        """Return the current time in seconds."""
        self.read_s = time.monotonic()
        return self.read_s - self.left_out_s

    def resume(self) -> None:
        """Exclude the time since the last reading; call this when a suspended process continues (SIGCONT)."""
        before_s, self.read_s = self.read_s, time.monotonic()
        self.left_out_s += self.read_s - before_s


@dataclass
class Stop:
    """Requests from outside (a signal handler): stop, save or suspend after the current step."""

    reason: str | None = None
    save: bool = False  # save after the current step
    suspend: bool = False  # the driver of the run suspends the process
    clock: Clock = field(default_factory=Clock)  # corrected when the process continues
    armed: bool = False  # whether a run has begun that obeys these requests
