"""Reads one field of the records of a .csv, .tsv, .json or .jsonl file as lines of a text."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterable, Iterator

from charlstm.errors import CorpusError
from charlstm.settings import TextOptions
from charlstm.text.objects import json_records, jsonl_records
from charlstm.text.sources import kind_of
from charlstm.text.tables import DELIMITERS, csv_records, split_columns
from charlstm.text.tally import Tally

BATCH_CHARS = 1 << 16
ENTITY_CHARS = 40
"""Maximum length of an HTML entity."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

READERS: dict[str, Callable[[Iterator[str], Tally], Iterator[str]]] = {
    "csv": csv_records,
    "tsv": csv_records,
    "json": json_records,
    "jsonl": jsonl_records,
}


def read(name: str, pieces: Iterator[str], options: TextOptions, notes: list[str]) -> Iterator[str]:
    """Yield the text to learn from: the pieces themselves, or the wanted field of each record and the separator.

    With the default separator, a record becomes one line: its own line ends become spaces. A record that is a string is
    used whole.

    Args:
        name: name of the text; its suffix determines the format.
        pieces: the decoded text.
        options: which field to read, what ends a record, and whether to decode HTML entities.
        notes: receives notes for the user.

    Raises:
        CorpusError: the text has no records, a record is malformed, or none has the field.
    """
    kind = kind_of(name)
    if not options.field:
        if kind:
            pieces = _suggest_field(name, kind, pieces, notes)
        yield from _unescaped(pieces) if options.unescape else pieces
        return
    if not kind and name == "standard input":
        kind, pieces = _recognise(pieces)
    if not kind:
        raise CorpusError(
            f"`field` is for .csv, .tsv, .json and .jsonl files, and {name} is none: leave it out, or rename the file"
        )
    tally = Tally(name, options.field)
    held, chars = [], 0
    for record in READERS[kind](pieces, tally):
        text = _as_line(html.unescape(record) if options.unescape else record, options.separator)
        if not text:
            tally.empty += 1
            continue
        tally.used += 1
        held.append(text + options.separator)
        chars += len(held[-1])
        if chars > BATCH_CHARS:
            yield "".join(held)
            held, chars = [], 0
    yield "".join(held)
    notes += tally.notes()


def _as_line(text: str, separator: str) -> str:
    """Return a record without surrounding space and half surrogate pairs, on one line if a line end separates records."""
    text = LONE_SURROGATE.sub("\ufffd", text)  # left by programs that cut a text inside an emoji
    if separator != "\n":
        return text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return " ".join(filter(None, map(str.strip, text.splitlines())))


def _unescaped(pieces: Iterable[str]) -> Iterator[str]:
    """Decode HTML entities in a text, also those that are cut between two pieces."""
    held = ""
    for piece in pieces:
        text = held + piece
        cut = text.rfind("&", max(0, len(text) - ENTITY_CHARS))
        cut = len(text) if cut < 0 or ";" in text[cut:] else cut
        held = text[cut:]
        yield html.unescape(text[:cut])
    yield html.unescape(held)


def _suggest_field(name: str, kind: str, pieces: Iterator[str], notes: list[str]) -> Iterator[str]:
    """Return the pieces unchanged, and note which fields could be read instead of the raw file."""
    first = next(pieces, "")
    if "json" in kind:
        names = list(dict.fromkeys(re.findall(r'"(\w+)"\s*:', first[:4000])))
    else:
        names = max((split_columns(first.partition("\n")[0], d) for d in DELIMITERS), key=len)
    if names:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        notes.append(f"{name} is read as it stands: to learn from one field, add `field` and its name ({shown})")
    return itertools.chain([first], pieces)


def _recognise(pieces: Iterator[str]) -> tuple[str, Iterator[str]]:
    """Return the format of a piped text, judged by its beginning, and its pieces."""
    first = next(pieces, "")
    begin = first.lstrip()
    kind = "json" if begin.startswith(("[", "window.")) else "jsonl" if begin.startswith("{") else "csv"
    return kind, itertools.chain([first], pieces)
