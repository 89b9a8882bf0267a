"""A loss curve in braille dots: two by four of them in every character cell."""

from __future__ import annotations

from collections.abc import Sequence

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille cell, by row and column."""

Points = Sequence[tuple[float, float]]


def draw(line: Points, marks: Points, width: int, height: int, low: float, high: float, last: float) -> list[str]:
    """`height` rows of `width` cells: a line through `line`, and `marks` drawn thick; x runs from 0 to `last`."""
    cells = [[0] * width for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        column = round(x / max(last, 1e-9) * (2 * width - 1))
        row = round((high - y) / max(high - low, 1e-9) * (4 * height - 1))
        return min(max(column, 0), 2 * width - 1), min(max(row, 0), 4 * height - 1)

    def dot(column: int, row: int) -> None:
        cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]

    before: tuple[int, int] | None = None
    for x, y in line:
        column, row = place(x, y)
        for between in range(*_span(before, row)) if before is not None and column - before[0] <= 2 else ():
            dot(column, between)
        dot(column, row)
        before = (column, row)
    for x, y in marks:
        column, row = place(x, y)
        for c in (column, min(column + 1, 2 * width - 1)):
            for r in (row, min(row + 1, 4 * height - 1)):
                dot(c, r)
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


def _span(before: tuple[int, int] | None, row: int) -> tuple[int, int]:
    if before is None:
        return row, row
    return min(before[1], row), max(before[1], row)


def thin(values: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` points: neighbours are averaged in pairs until they fit."""
    while len(values) > most:
        values = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(values[::2], values[1::2], strict=False)]
    return values
