"""A number in large digits, a progress bar, and a scale with marks on it."""

from __future__ import annotations

from collections.abc import Sequence

DIGITS = {
    "0": ("█▀█", "█ █", "▀▀▀"),
    "1": ("▀█ ", " █ ", "▀▀▀"),
    "2": ("▀▀█", "█▀▀", "▀▀▀"),
    "3": ("▀▀█", " ▀█", "▀▀▀"),
    "4": ("█ █", "▀▀█", "  ▀"),
    "5": ("█▀▀", "▀▀█", "▀▀▀"),
    "6": ("█▀▀", "█▀█", "▀▀▀"),
    "7": ("▀▀█", "  █", "  ▀"),
    "8": ("█▀█", "█▀█", "▀▀▀"),
    "9": ("█▀█", "▀▀█", "▀▀▀"),
    ".": (" ", " ", "▀"),
    "-": ("   ", "▀▀▀", "   "),
}
DIGIT_ROWS = 3
LINE, GONE = "─", "━"


def large(number: float | None) -> list[str]:
    """Draw a number with four digits, in rows of equal width."""
    text = "-" if number is None else f"{number:.3f}" if number < 10 else f"{number:.2f}"[:5]
    return [" ".join(DIGITS[c][row] for c in text) for row in range(DIGIT_ROWS)]


def bar(share: float, columns: int) -> str:
    """Draw a progress bar whose first `share` is done."""
    done = round(min(max(share, 0.0), 1.0) * columns)
    return GONE * done + LINE * (columns - done)


def scale(
    columns: int,
    start: float,
    end: float,
    marks: Sequence[tuple[str, float]],
    pointers: Sequence[tuple[str, float]],
) -> tuple[str, str]:
    """Draw two rows: names of marks, and a line from `start` at the left to `end` at the right with marks and pointers on it.

    The line is heavy up to the last pointer, which shows the progress made.

    Args:
        columns: width of the rows.
        start: value at the left end.
        end: value at the right end, smaller than `start`.
        marks: name, which may be empty, and value; if names collide, later ones are omitted.
        pointers: one character and a value; later ones cover earlier ones.
    """

    def column(value: float) -> int:
        return round(min(max((start - value) / max(start - end, 1e-9), 0.0), 1.0) * (columns - 1))

    line = list(bar(column(pointers[-1][1]) / max(1, columns - 1), columns) if pointers else LINE * columns)
    names = [" "] * columns
    for name, value in marks:
        at = column(value)
        line[at] = "┿" if line[at] == GONE else "┼"
        for label in (f"{name} {value:.2f}".lstrip(), name):
            first = min(at, columns - len(label))
            if first >= 0 and not "".join(names[max(0, first - 2) : first + len(label) + 2]).strip():
                names[first : first + len(label)] = label
                break
    for character, value in pointers:
        line[column(value)] = character
    return "".join(names), "".join(line)
