"""Formatting shared by all displays: durations, losses, and text that cannot control a terminal."""

from __future__ import annotations

import math
import os
import unicodedata
from typing import TextIO

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text after them."""


def may_embolden(out: TextIO | None) -> bool:
    """Return whether a stream is a terminal with bold text; NO_COLOR, as in Rich, concerns colour only."""
    return out is not None and out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Trend:
    """Whether a number is steady, rising or falling, by comparing a fast running mean with a slow one."""

    def __init__(self, slack: float = 0.0) -> None:
        self.slack = slack  # the difference up to which it counts as steady
        self.quick = self.slow = 0.0
        self.seen = 0

    def add(self, value: float) -> None:
        """Add the next value."""
        self.seen += 1
        self.quick += (value - self.quick) / min(self.seen, 20)
        self.slow += (value - self.slow) / min(self.seen, 400)

    def word(self) -> str:
        """Return steady, rising or falling."""
        if self.quick > 1.25 * self.slow + self.slack:
            return "rising"
        return "falling" if self.slow > 1.25 * self.quick + self.slack else "steady"


def duration(seconds: float | None) -> str:
    """Format as 3:07 or 1:02:03, or ? if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def ago(seconds: float) -> str:
    """Format as just now, 5 minutes ago, 1 hour ago or 12 days ago."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def size(number: float) -> str:
    """Format as 850 bytes, 84 kB, 1.4 MB or 2.1 GB."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= one:
            value = number / one
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{number:.0f} bytes"


def bits(nats: float) -> float:
    """Convert nats to bits."""
    return nats / math.log(2)


def nats(number: float | None) -> str:
    """Format as 1.534, or - if there is none."""
    return "-" if number is None else f"{number:.3f}"


def loss(nats: float | None) -> str:
    """Format as 1.534 nats (2.213 bits), or - if there is none."""
    return "-" if nats is None else f"{nats:.3f} nats ({bits(nats):.3f} bits)"


def against(nats: float | None, ngram_nats: float | None, order: int | None) -> str:
    """Compare a loss with the n-gram baseline; empty if either is unknown."""
    if nats is None or ngram_nats is None:
        return ""
    side = "below" if nats < ngram_nats else "above"
    return f", {abs(nats - ngram_nats):.3f} {side} the {order}-gram's {ngram_nats:.3f}"


def unsaved(reason: str) -> str:
    """Report a failed save."""
    return f"not saved: {reason}; training continues, and charlstm will retry"


def count(number: float) -> str:
    """Format as 950, 81k or 1.3M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return f"{number:.0f}"


def visible(text: str) -> str:
    """Make control characters visible, so that none can move the cursor, change colours or ring: as pictures, or as their code."""
    return "".join(map(_visible, text))


def inline(text: str) -> str:
    """Make newlines and tabs visible too, so that a name or a message stays on the line that it is printed on."""
    return visible(text).replace("\n", "\u240a").replace("\t", "\u2409")


def _visible(c: str) -> str:
    point = ord(c)
    if c in "\n\t":
        return c
    if point < 0x20:
        return chr(0x2400 + point)
    if point == 0x7F:
        return "\u2421"
    if c in BIDI or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"):
        return f"<{point:04X}>"
    return c


def one_line(text: str, width: int) -> str:
    """Cut a text to one line of at most `width` characters."""
    line = visible(text.strip().replace("\t", " ")).replace("\n", " | ")
    return line if len(line) <= width else line[: width - 3] + "..."
