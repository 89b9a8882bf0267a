"""Text whose width all terminals agree on, so that a screen laid out around it cannot shift or tear.

Terminals disagree on the width of joined emoji, skin tones, flags, invisible joiners and characters newer than the terminal. This
module replaces these by a plainer form that reads alike.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len

from charlstm.display.formatting import visible

FLAG_LETTERS = 0x1F1E6
"""The first of the 26 regional indicators, pairs of which make flags in some terminals; they are shown as letters."""
CARRIER = "\u25cc"
"""The dotted circle, shown below a combining mark that has no base character."""
TAB = 4


def sanitize(text: str) -> str:
    """Replace characters whose cells `width` cannot count, and make control characters visible."""
    shown: list[str] = []
    carried = False  # whether a base character for a combining mark precedes
    for c in unicodedata.normalize("NFC", text):
        plain = _plain(c)
        if width(plain) == 0 and plain:
            shown.append(plain if carried else CARRIER + plain)
            carried = True
        elif plain:
            shown.append(plain)
            carried = plain not in "\n\t "
    return "".join(shown)


@lru_cache(maxsize=4096)
def _plain(c: str) -> str:
    """Return the form in which a character is shown; empty if it only changes how its neighbours look."""
    point, kind = ord(c), unicodedata.category(c)
    if c in "\n\t" or " " <= c <= "~":
        return c
    if FLAG_LETTERS <= point < FLAG_LETTERS + 26:
        return chr(ord("A") + point - FLAG_LETTERS)
    if kind in ("Cn", "Co"):  # unassigned or private: the width is unknown
        return f"<{point:04X}>"
    if (shown := visible(c)) != c:
        return shown
    if kind in ("Cf", "Me") or 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF or 0x1F3FB <= point <= 0x1F3FF:
        return ""
    return c


def width(text: str) -> int:
    """Count the cells of a measurable text without newlines and tabs; no terminal uses more."""
    return len(text) if text.isascii() else sum(map(_width, text))


def is_narrow(text: str) -> bool:
    """Return whether every character of a measurable text is one cell wide."""
    return text.isascii() or all(_width(c) == 1 for c in text)


@lru_cache(maxsize=4096)
def _width(c: str) -> int:
    return 0 if unicodedata.category(c) == "Mn" else max(1, cell_len(c))


def wrap(text: str, columns: int) -> list[str]:
    """Wrap a measurable text to lines of at most `columns` cells (at least 2), between words if possible."""
    return [line for paragraph in text.split("\n") for line in _wrap(paragraph, max(2, columns))]


def _wrap(paragraph: str, columns: int) -> list[str]:
    lines: list[str] = []
    line: list[str] = []
    used = gap = 0  # cells of the line; index at which its last word begins

    for c in paragraph:
        piece = " " * (TAB - used % TAB) if c == "\t" else c
        cells = width(piece)
        if used + cells > columns and cells:
            if piece.isspace():  # the line break replaces it
                lines.append("".join(line))
                line, used, gap = [], 0, 0
                continue
            kept = line[gap:] if gap > 0 else []
            lines.append("".join(line[: gap or None]).rstrip(" "))
            line, used, gap = kept, sum(map(width, kept)), 0
        line.append(piece)
        used += cells
        if piece.isspace():
            gap = len(line)
    return [*lines, "".join(line)]


def fit(text: str, columns: int) -> str:
    """Make a line measurable and cut it to at most `columns` cells, with an ellipsis if anything is cut."""
    line = sanitize(text.replace("\n", " ").replace("\t", " "))
    if width(line) <= columns:
        return line
    kept, used = 0, 0
    for c in line:
        used += _width(c)
        if used > columns - 1:
            break
        kept += 1
    return line[:kept] + "…" if columns > 0 else ""
