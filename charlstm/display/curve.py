"""Loss curves in text: training as a line of braille dots, two by four per cell, and held-out losses as letters on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot in a braille cell, by row and column."""
MARK = "o"
"""Marks a held-out loss; a letter, so that the two curves differ without colour."""
STEEP = 0.1
"""The losses of this first share of the steps fall steeply and do not affect the axis."""

Points = Sequence[tuple[float, float]]


def draw(line: Points, marks: Points, width: int, height: int, low: float, high: float, last: float) -> list[str]:
    """Draw a line through `line`, and `MARK` at each of `marks`, in `height` rows of `width` cells; x runs from 0 to `last`.

    Values above `high` or below `low` are drawn at the edge.
    """
    cells = [[0] * width for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        column = round(x / max(last, 1e-9) * (2 * width - 1))
        row = round((high - y) / max(high - low, 1e-9) * (4 * height - 1))
        return min(max(column, 0), 2 * width - 1), min(max(row, 0), 4 * height - 1)

    before: tuple[int, int] | None = None
    for x, y in line:
        column, row = place(x, y)
        c0, r0 = before or (column, row)
        steps = max(abs(column - c0), abs(row - r0), 1)
        for k in range(steps + 1):
            c, r = c0 + round((column - c0) * k / steps), r0 + round((row - r0) * k / steps)
            cells[r // 4][c // 2] |= DOTS[r % 4][c % 2]
        before = (column, row)
    rows = [[chr(0x2800 + cell) if cell else " " for cell in row] for row in cells]
    for x, y in marks:
        column, row = place(x, y)
        rows[row // 4][column // 2] = MARK
    return ["".join(row) for row in rows]


def chart(line: Points, marks: Points, width: int, height: int) -> list[tuple[str, str]]:
    """Draw the curves of a run in `height` rows of `width` columns, each an axis label, which may be empty, and the drawing."""
    everything = [(x, y) for x, y in (*line, *marks) if math.isfinite(y)]
    last = max((x for x, _ in everything), default=0.0)
    low = min((y for _, y in everything), default=0.0)
    high = max((y for x, y in everything if x >= STEEP * last), default=low)
    labels = [f"{high:.2f}", *[""] * (height - 2), f"{low:.2f}"][:height]
    room = max(map(len, labels))
    line = [(x, y) for x, y in thin(list(line), 2 * width) if low <= y <= high]
    marks = [(x, y) for x, y in marks if low <= y <= high]
    rows = draw(line, marks, max(4, width - room - 1), height, low, high, last)
    return [(f"{label:>{room}}", row) for label, row in zip(labels, rows, strict=True)]


def thin(values: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Reduce to at most `most` points, by averaging neighbours in pairs until they fit."""
    while len(values) > most:
        values = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(values[::2], values[1::2], strict=False)]
    return values
