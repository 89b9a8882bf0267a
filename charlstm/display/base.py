"""What every display is: a consumer of events, and a context manager, so that the terminal is always given back."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from charlstm.events import Event

D = TypeVar("D", bound="Display")


class Display:
    """A display that holds no terminal; whoever does says how it is given back."""

    stream_preview = False
    """Whether previews should come piece by piece."""

    def show(self, event: Event) -> None:
        """Take note of an event, and draw if it is time to."""
        raise NotImplementedError

    def rest(self) -> None:
        """Give the terminal back while the process is stopped; the next event takes it again."""

    def close(self) -> None:
        """Give the terminal back for good."""

    def __enter__(self: D) -> D:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
