"""The base class of displays: a consumer of events, and a context manager that always gives the terminal back."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from charlstm.events import Event

D = TypeVar("D", bound="Display")


class Display:
    """A display that does not take over the terminal; one that does overrides `suspend` and `close`."""

    stream_preview = False
    """Whether previews should arrive piece by piece."""

    def show(self, event: Event) -> None:
        """Record an event, and draw if it is time to."""
        raise NotImplementedError

    def suspend(self) -> None:
        """Give the terminal back while the process is suspended; the next event takes it over again."""

    def close(self) -> None:
        """Give the terminal back for good."""

    def __enter__(self: D) -> D:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
