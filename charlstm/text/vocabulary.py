"""The characters that a model knows, and conversion between text and ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from charlstm.nn.types import Ids
from charlstm.text.ids import MappedIds, TextIds


def describe(character: str) -> str:
    """Format a character for an error message, as in 'é' (U+00E9); control characters are escaped."""
    return f"{character!r} (U+{ord(character):04X})"


def describe_some(characters: Sequence[str]) -> str:
    """Format the first few of some characters for an error message."""
    return ", ".join(describe(c) for c in characters[:8]) + (" and more" if len(characters) > 8 else "")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of characters; the id of a character is its index.

    Characters are Unicode code points, including combining marks, joiners and NUL.
    """

    characters: str

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: str) -> bool:
        return character in self._ids

    def unknown(self, text: str) -> list[str]:
        """Return the distinct characters of `text` that are not in the vocabulary, in order of appearance."""
        return [c for c in dict.fromkeys(text) if c not in self._ids]

    def encode(self, text: str) -> Ids:
        """Convert text to ids, (chars,); raise KeyError for a character that is not in the vocabulary."""
        return np.array([self._ids[c] for c in text], dtype=np.intp)

    def translate(self, ids: TextIds, other: Vocabulary) -> tuple[TextIds, list[str]]:
        """Convert ids of another vocabulary, (chars,), to this one's; drop and return the unknown characters.

        Ids in a file stay there, unless some are dropped.
        """
        table = np.array([self._ids.get(c, -1) for c in other.characters])
        unknown_chars = table < 0
        if unknown_chars.any():
            ids = np.asarray(ids)
            ids = ids[~unknown_chars[ids]]
        small = table.astype(np.min_scalar_type(max(0, len(self) - 1)))
        return ids.translated(small) if isinstance(ids, MappedIds) else small[ids], [
            c for c, missing in zip(other.characters, unknown_chars, strict=True) if missing
        ]

    def decode(self, ids: TextIds) -> str:
        """Convert ids, (chars,), to text."""
        return "".join(self.characters[i] for i in np.asarray(ids).tolist())
