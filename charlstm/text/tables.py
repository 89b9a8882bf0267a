"""Reads one column of a .csv or .tsv file."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator

from charlstm.errors import CorpusError
from charlstm.text.sources import kind_of
from charlstm.text.tally import Tally, no_field, split_lines

DELIMITERS = ",;\t|"


class _Lines:
    """The lines of a text, which are counted; those of the latest record can be read again."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self.lines = split_lines(pieces)
        self.again: deque[str] = deque()
        self.record: list[str] = []  # lines of the present record
        self.first = 1  # line number of its first line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.record.append(line)
        return line

    def begin_record(self) -> None:
        """Declare that the next line begins a record."""
        self.first += len(self.record)
        self.record = []

    def rewind(self) -> str:
        """Return the first line of the record; its other lines are read again."""
        first, *rest = self.record
        self.again.extendleft(reversed(rest))
        self.record = [first]
        return first.removesuffix("\n")


def csv_records(pieces: Iterator[str], tally: Tally) -> Iterator[str]:
    """Yield the wanted column of a CSV or TSV file (RFC 4180); repair rows with misplaced quotes if that is unambiguous."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        lines = _Lines(pieces)
        header = next(lines, "").removesuffix("\n")
        if not header:
            raise CorpusError(f"{tally.name} is empty or begins with an empty line: give a file of records")
        delimiter, index, columns = _find_column(header, tally)
        if columns[index] != tally.wanted:  # a number: there is no header
            lines.again.append(lines.record.pop())
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            lines.begin_record()
            row: list[str] | None = None
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                pass
            if row == []:
                continue
            tally.rows += 1
            if row is None or len(row) != len(columns):
                line = lines.rewind()
                column, why = _diagnose(line, delimiter, len(columns))
                row = _repair(line, delimiter, len(columns))
                place = f"{tally.at(lines.first, column)}: {why}"
                tally.trouble["malformed" if row is None else "repaired"].append(place)
            if row is not None:
                yield row[index]
    finally:
        csv.field_size_limit(limit)


def _find_column(header: str, tally: Tally) -> tuple[str, int, list[str]]:
    """Return the delimiter, the index of the wanted column, and all columns.

    Raises:
        CorpusError: no column has this name or number.
    """
    by_delimiter = {d: split_columns(header, d) for d in (DELIMITERS if kind_of(tally.name) != "tsv" else "\t")}
    for delimiter, columns in by_delimiter.items():
        if tally.wanted in columns:
            return delimiter, columns.index(tally.wanted), columns
    delimiter = max(by_delimiter, key=lambda d: len(by_delimiter[d]))
    columns = by_delimiter[delimiter]
    if tally.wanted.isdecimal() and 1 <= int(tally.wanted) <= len(columns):
        return delimiter, int(tally.wanted) - 1, columns
    raise no_field(tally.name, tally.wanted, columns)


def split_columns(line: str, delimiter: str) -> list[str]:
    """Return the columns of a header line."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return line.split(delimiter)


def _repair(line: str, delimiter: str, columns: int) -> list[str] | None:
    """Split a line whose quotes break the rules, or return None if it can't be split into this many columns.

    First a quoted field is taken to end only at a quote before a delimiter; then quotes are taken as ordinary characters.
    A single column takes the whole line.
    """
    if columns == 1:
        return [line]
    d = re.escape(delimiter)
    cells = re.findall(rf'(?:^|(?<={d}))(?:"(.*?)"(?=$|{d})|([^{d}]*))(?:$|{d})', line)
    if len(cells) == columns:
        return [quoted.replace('""', '"') or plain for quoted, plain in cells]
    plain = line.split(delimiter)
    return [re.sub(r'^"([^"]*)"$', r"\1", part) for part in plain] if len(plain) == columns else None


def _diagnose(line: str, delimiter: str, columns: int) -> tuple[int, str]:
    """Return the column, counted from 1, where the first line of a malformed row breaks the rules, and how."""
    quoted, begins, opened, fields, k = False, True, 0, 1, 0
    while k < len(line):
        c = line[k]
        if quoted and c == '"':
            after = line[k + 1 : k + 2]
            if after == '"':
                k += 1
            elif after in ("", delimiter):
                quoted = False
            else:
                return k + 1, "the quote within the quoted field is not doubled"
        elif not quoted and c == '"' and begins:
            quoted, opened = True, k + 1
        elif not quoted and c == delimiter:
            fields += 1
            begins = True
            k += 1
            continue
        begins = False
        k += 1
    if quoted:
        return opened, "the quoted field that begins here does not end as it should"
    return len(line) + 1, f"the row has {fields} columns, and the header {columns}"
