"""The identity of a text: where it came from, how it was read, and the fingerprint of its characters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from charlstm.nn.config import COUNT, Range
from charlstm.settings import TextOptions


@dataclass(frozen=True)
class TextInfo:
    """Identity of a text: its sources, how they were read, and the fingerprint of what was read."""

    sources: tuple[str, ...]  # absolute paths, "-", or the name of the built-in text
    encoding: str
    chars: Annotated[int, Range(2, COUNT.high)]
    sha256: str  # of the text as UTF-8, after decoding and newline conversion
    field: str = TextOptions.field  # this and the rest are as in `TextOptions`; old files lack them
    separator: str = TextOptions.separator
    unescape: bool = TextOptions.unescape
    held_out: TextInfo | None = None  # of the held-out text, if that is not the end of this one

    @property
    def options(self) -> TextOptions:
        """How the text was read."""
        return TextOptions(self.encoding, self.field, self.separator, self.unescape)

    def same_as(self, other: TextInfo) -> bool:
        """Return whether both are the same characters, with the same held-out text, wherever their files are."""
        if self.held_out is None or other.held_out is None:
            held_out = self.held_out is other.held_out
        else:
            held_out = self.held_out.same_as(other.held_out)
        return held_out and (self.sha256, self.chars) == (other.sha256, other.chars)


def train_chars(chars: int, val_fraction: float) -> int:
    """Return how many characters of a text are trained on; the rest is held out.

    Nothing is held out if either part would have fewer than two characters.
    """
    cut = chars - int(chars * val_fraction)
    return chars if chars - cut < 2 or cut < 2 else cut
