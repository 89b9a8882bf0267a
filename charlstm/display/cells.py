"""Text that every terminal measures alike, so that a screen laid out around it can't shift or tear.

Terminals disagree on what takes how many cells: emoji joined to one, skin tones, flags, invisible joiners, characters newer than the
terminal. What they disagree on is shown in a plainer form here, which no longer is the text itself but reads like it.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len

from charlstm.display.words import visible

FLAG_LETTERS = 0x1F1E6
"""The first of 26 characters, two of which make a flag in some terminals: they are shown as the letters they stand for."""
CARRIER = "\u25cc"
"""The dotted circle that a combining mark sits on where nothing else is there to carry it."""
TAB = 4


def measurable(text: str) -> str:
    """The text in characters whose cells can be counted by `width`; control characters are visible in it."""
    shown: list[str] = []
    carried = False  # whether there is a character that a mark can sit on
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
    """The form of one character that is shown; empty for what only changes how its neighbours look."""
    point, kind = ord(c), unicodedata.category(c)
    if c in "\n\t" or " " <= c <= "~":
        return c
    if FLAG_LETTERS <= point < FLAG_LETTERS + 26:
        return chr(ord("A") + point - FLAG_LETTERS)
    if kind in ("Cn", "Co"):  # of no known width
        return f"<{point:04X}>"
    if (shown := visible(c)) != c:
        return shown
    if kind in ("Cf", "Me") or 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF or 0x1F3FB <= point <= 0x1F3FF:
        return ""
    return c


def width(text: str) -> int:
    """Cells of a measurable text without line ends and tabs: at least as many as any terminal takes for it."""
    return len(text) if text.isascii() else sum(map(_width, text))


@lru_cache(maxsize=4096)
def _width(c: str) -> int:
    return 0 if unicodedata.category(c) == "Mn" else max(1, cell_len(c))


def wrap(text: str, columns: int) -> list[str]:
    """A measurable text in lines of at most so many cells (two at least), broken between words where that is possible."""
    return [line for paragraph in text.split("\n") for line in _wrap(paragraph, max(2, columns))]


def _wrap(paragraph: str, columns: int) -> list[str]:
    lines: list[str] = []
    line: list[str] = []
    used = gap = 0  # cells of the line; where its last word begins

    for c in paragraph:
        piece = " " * (TAB - used % TAB) if c == "\t" else c
        cells = width(piece)
        if used + cells > columns and cells:
            if piece.isspace():  # the end of the line is space enough
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
    """The beginning of a line, made measurable, that takes at most so many cells; an ellipsis tells of the rest."""
    line = measurable(text.replace("\n", " ").replace("\t", " "))
    if width(line) <= columns:
        return line
    kept, used = 0, 0
    for c in line:
        used += _width(c)
        if used > columns - 1:
            break
        kept += 1
    return line[:kept] + "…" if columns > 0 else ""
