"""JSON lines on stdout, one event each, for programs; the keys are the fields of the events, which do not change, and `time`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TextIO

from charlstm import events
from charlstm.display.base import Display

EVERY_S = 1.0
"""Minimum number of seconds between two progress lines."""


class JsonDisplay(Display):
    """Events as JSON lines; the display adds the wall-clock time, so that events and runs stay independent of any clock."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> None:
        self.stream, self.now = stream, now
        self.next_s = 0.0

    def show(self, event: events.Event) -> None:
        """Write the event as one line; plans, and progress that comes too soon, are skipped."""
        if isinstance(event, events.Planned):
            return  # `steps` of the next progress event says the same
        if isinstance(event, events.Progress):
            if event.elapsed_s < self.next_s:
                return
            self.next_s = event.elapsed_s + EVERY_S
        time = self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(dump({"event": event.name, "time": time} | vars(event)), file=self.stream, flush=True)


def dump(data: dict[str, Any]) -> str:
    """Format as a JSON line; numbers that are not finite become null."""
    return json.dumps({key: _finite(value) for key, value in data.items()}, ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
