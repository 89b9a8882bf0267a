"""Text to ids and back: which characters a model knows, in the order of their code points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn.types import Ids


def describe(character: str) -> str:
    """A character as an error message names it: 'é' (U+00E9); no control character gets through."""
    return f"{character!r} (U+{ord(character):04X})"


def describe_some(characters: Sequence[str]) -> str:
    """The first few of some characters, as an error message names them."""
    return ", ".join(describe(c) for c in characters[:8]) + (" and more" if len(characters) > 8 else "")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of characters; a character's id is its place in it.

    Characters are Unicode code points: combining marks, joiners and NUL are characters like all others.
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
        """The characters of `text` that are not in the vocabulary, each once, in the order of their appearance."""
        return [c for c in dict.fromkeys(text) if c not in self._ids]

    def encode(self, text: str) -> Ids:
        """Ids of a text; raises KeyError for a character that is not in the vocabulary."""
        return np.array([self._ids[c] for c in text], dtype=np.intp)

    def translate(self, ids: NDArray[Any], other: Vocabulary) -> tuple[NDArray[Any], list[str]]:
        """Ids of another vocabulary (chars,) as ids of this one; what this one does not have is left out, and named."""
        table = np.array([self._ids.get(c, -1) for c in other.characters])
        strange = table < 0
        if strange.any():
            ids = ids[~strange[ids]]
        small = np.min_scalar_type(max(0, len(self) - 1))
        return table.astype(small)[ids], [c for c, missing in zip(other.characters, strange, strict=True) if missing]

    def decode(self, ids: Ids) -> str:
        """The text of ids."""
        return "".join(self.characters[int(i)] for i in ids)
