"""A progress bar while a long text is read."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlstm.settings import OnRead

PATIENCE_S = 1.0
"""Seconds before the bar is shown."""


@contextmanager
def reading_bar(*, shown: bool = True) -> Iterator[OnRead | None]:
    """Yield a function to call as a text is read, which shows a bar on a terminal; None if nothing is to be shown."""
    if not shown or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield None
        return
    began_s, done, bar = time.monotonic(), 0, None  # type: float, int, Any

    def on_read(count: int, total: int) -> None:
        nonlocal done, bar
        done += count
        if bar is not None:
            bar.update(count)
        elif time.monotonic() >= began_s + PATIENCE_S:
            bar = _open(done, total)

    try:
        yield on_read
    finally:
        if bar is not None:
            bar.close()


def _open(done: int, total: int) -> Any:
    from tqdm import tqdm  # most texts are read before it is imported

    return tqdm(
        total=total or None, initial=done, desc="reading", unit="B", unit_scale=True, leave=False, file=sys.stderr
    )
