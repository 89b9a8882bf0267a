"""Paints lines of text on a terminal and writes only what differs from the lines before, so that slow links do not flicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from charlstm.display import cells

BEGIN, END = Segment("\x1b[?2026h", None, []), Segment("\x1b[?2026l", None, [])
"""Synchronized output: the terminal shows everything between the two at once. Terminals that do not know it ignore it."""


class Painter:
    """Remembers what is on the screen, and updates it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lines: list[Text] = []  # as on the screen
        self.clear = True  # whether to clear the screen first

    def forget(self, *, clear: bool) -> None:
        """Write everything the next time; with `clear`, also clear the screen first."""
        self.lines, self.clear = [], self.clear or clear

    def paint(self, lines: Sequence[Text]) -> None:
        """Bring the screen up to date, in a single write."""
        frame: list[Segment] = []
        for row, line in enumerate(lines):
            frame += self._row(row, line, self.lines[row] if row < len(self.lines) else None)
        if self.clear:
            frame.insert(0, _control((ControlType.HOME,), (ControlType.CLEAR,)))
        self.lines, self.clear = list(lines), False
        if frame:
            self.console.print(Segments([BEGIN, *frame, END]), end="", crop=False)

    def _row(self, row: int, line: Text, before: Text | None) -> list[Segment]:
        if before is None:
            start, end, erase = 0, len(line), not self.clear
        elif line == before and line.style == before.style:
            return []
        else:
            start, end = _changed(before, line)
            erase = cells.width(line.plain) < cells.width(before.plain)
        drawn = [_move(start, row), *line[start:end].render(self.console)]
        if erase and before is None:  # before the text: in the last column, the cursor is still on the last character
            return [drawn[0], _control((ControlType.ERASE_IN_LINE, 0)), *drawn[1:]]
        if erase:
            drawn += [_move(cells.width(line.plain), row), _control((ControlType.ERASE_IN_LINE, 0))]
        return drawn


def _changed(before: Text, line: Text) -> tuple[int, int]:
    """Return where the first and the last change of a line are; all of it if its characters are not one cell wide each."""
    if not (cells.is_narrow(before.plain) and cells.is_narrow(line.plain)):
        return 0, len(line)
    old, new = _styled(before), _styled(line)
    start = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    end = len(new)
    if len(old) == len(new):
        while end > start and old[end - 1] == new[end - 1]:
            end -= 1
    return start, end


def _styled(line: Text) -> list[tuple[Any, ...]]:
    """Return every character of a line with its styles."""
    styled: list[tuple[Any, ...]] = [(c, line.style) for c in line.plain]
    for span in line.spans:
        for k in range(span.start, min(span.end, len(styled))):
            styled[k] += (span.style,)
    return styled


def _move(column: int, row: int) -> Segment:
    return Control.move_to(column, row).segment


def _control(*codes: tuple[ControlType] | tuple[ControlType, int]) -> Segment:
    return Control(*codes).segment
