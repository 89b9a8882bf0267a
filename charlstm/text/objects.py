"""Reads one field of the objects in a .json or .jsonl file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from charlstm.errors import CorpusError
from charlstm.text.tally import Tally, split_lines

SPACE = re.compile(r"\s*")


def jsonl_records(pieces: Iterator[str], tally: Tally) -> Iterator[str]:
    """Yield the wanted field of each line, which is a JSON object."""
    for number, line in enumerate(split_lines(pieces), 1):
        if not line.strip():
            continue
        tally.rows += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            column = getattr(error, "colno", 1)
            tally.trouble["malformed"].append(f"{tally.at(number, column)}: not valid JSON ({_reason(error)})")
            continue
        yield from _value(record, tally, partial(tally.at, number, 1))


def json_records(pieces: Iterator[str], tally: Tally) -> Iterator[str]:
    """Yield the wanted field of each object in an array, or of several objects in a row.

    The records are decoded one by one, so that memory holds little more than the text. A variable that the array is
    assigned to is skipped, as in the archive that Twitter sends.
    """
    text, decode = "".join(pieces), json.JSONDecoder().raw_decode
    at = _skip(text, 0)
    if tally.name.lower().endswith(".js") or text.startswith("window.", at):
        at = max(at, text.find("["))
    array = text.startswith("[", at)
    at = _skip(text, at + array)
    while at < len(text) and not (array and text[at] == "]"):
        tally.rows += 1
        start = at

        def place(at: int = start) -> str:
            return tally.at(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))

        try:
            record, at = decode(text, at)
        except (ValueError, RecursionError) as error:
            raise CorpusError(
                f"{place(getattr(error, 'pos', start))}: not valid JSON ({_reason(error)}): repair the file"
            ) from error
        yield from _value(record, tally, place)
        at = _skip(text, at)
        if array and text.startswith(",", at):
            at = _skip(text, at + 1)
    if array and at == len(text):
        raise CorpusError(f"{tally.name} ends inside its array: get a whole copy of it")


def _skip(text: str, at: int) -> int:
    """Return the position of the next character that is not white space."""
    return SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _reason(error: Exception) -> str:
    return getattr(error, "msg", "").removesuffix(" at") or (
        "nested too deeply" if isinstance(error, RecursionError) else str(error)
    )


def _value(record: Any, tally: Tally, place: Callable[[], str]) -> Iterator[str]:
    """Yield the wanted field of a record, if it has one: a text, or a number as it is written.

    Raises:
        CorpusError: the record is not an object, or the field is an object or a list.
    """
    if isinstance(record, str):
        yield record
        return
    if not isinstance(record, dict):
        raise CorpusError(f"{place()}: the record is {json.dumps(record):.40}, not an object: give a list of objects")
    value: Any = record
    for name in [tally.wanted] if tally.wanted in record else tally.wanted.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        tally.missing += 1
        tally.fields = tally.fields or _names(record)
    elif isinstance(value, (dict, list)):
        inner = f", as in {_names(value, tally.wanted + '.')[0]!r}" if isinstance(value, dict) and value else ""
        raise CorpusError(
            f"{place()}: the field {tally.wanted!r} is {'a list' if isinstance(value, list) else 'an object'}, not a text: give another `field`{inner}"
        )
    else:
        yield value if isinstance(value, str) else json.dumps(value)


def _names(record: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the names of the fields of an object, and of the objects in it."""
    names: list[str] = []
    for name, value in record.items():
        names += _names(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name]
    return names
