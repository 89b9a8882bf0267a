"""Counts what became of the records of a file, and splits a text into lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from charlstm.errors import CorpusError, did_you_mean

MALFORMED_SHARE = 0.01
"""Fraction of malformed rows that are skipped with a note; a file with more is refused."""


@dataclass
class Tally:
    """What became of the records of one file, and the first place of each kind of trouble."""

    name: str  # of the file
    wanted: str  # field
    rows: int = 0
    used: int = 0
    empty: int = 0
    missing: int = 0
    fields: list[str] = field(default_factory=list)  # of the first record that lacks the wanted one
    trouble: dict[str, list[str]] = field(default_factory=lambda: {"repaired": [], "malformed": []})

    def at(self, line: int, column: int) -> str:
        """Return a place for a message."""
        return f"{self.name}, line {line}, column {column}"

    def notes(self) -> list[str]:
        """Return notes for the user.

        Raises:
            CorpusError: too many records are malformed, or none has the field.
        """
        malformed, repaired = self.trouble["malformed"], self.trouble["repaired"]
        if len(malformed) > MALFORMED_SHARE * self.rows:
            many = f", one of {len(malformed):,} malformed among {self.rows:,}" if len(malformed) > 1 else ""
            raise CorpusError(f"{malformed[0]}{many}: repair or delete such records")
        if not self.used and self.missing:
            raise no_field(self.name, self.wanted, self.fields)
        if not self.used:
            raise CorpusError(f"{self.name} has no text in its field {self.wanted!r}: give another `field`")
        notes = []
        if malformed:
            notes.append(f"{malformed[0]} (rows like this are skipped: {len(malformed):,} of {self.rows:,})")
        if repaired:
            notes.append(f"{repaired[0]} (rows like this are read as they stand: {len(repaired):,} of {self.rows:,})")
        if self.missing:
            notes.append(f"{self.name}: records without a field {self.wanted!r}: {self.missing:,} of {self.rows:,}")
        if self.empty:
            notes.append(f"{self.name}: empty records, left out: {self.empty:,} of {self.rows:,}")
        return notes


def no_field(name: str, wanted: str, fields: list[str]) -> CorpusError:
    """Return the error for a field that no record has, with the names of those that there are."""
    shown = ", ".join(fields[:12]) + (", …" if len(fields) > 12 else "")
    hint = did_you_mean(wanted, fields)
    return CorpusError(f"{name} has no field {wanted!r} ({shown}): {hint or 'give one of these as `field`'}")


def split_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text, each with its LF except perhaps the last."""
    held: list[str] = []
    for piece in pieces:
        first, *rest = piece.split("\n")
        held.append(first)
        for part in rest:
            yield "".join(held) + "\n"
            held = [part]
    if last := "".join(held):
        yield last
