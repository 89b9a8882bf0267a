"""JSON lines on stdout, one event each, for programs; the keys are the fields of the events and do not change."""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

from charlstm import events
from charlstm.display.base import Display

EVERY_S = 1.0
"""Minimum number of seconds between two progress lines."""


class JsonDisplay(Display):
    """Events as JSON lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.next_s = 0.0

    def show(self, event: events.Event) -> None:
        """Write the event as one line; plans, and progress that comes too soon, are skipped."""
        if isinstance(event, events.Planned):
            return  # `steps` of the next progress event says the same
        if isinstance(event, events.Progress):
            if event.elapsed_s < self.next_s:
                return
            self.next_s = event.elapsed_s + EVERY_S
        print(dump({"event": event.name} | vars(event)), file=self.stream, flush=True)


def dump(data: dict[str, Any]) -> str:
    """Format as a JSON line; numbers that are not finite become null."""
    return json.dumps({key: _finite(value) for key, value in data.items()}, ensure_ascii=True, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
