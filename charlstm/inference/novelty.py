"""Measures how much of a sample is copied word for word from the training text."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.text import again
from charlstm.text.corpus import TextInfo
from charlstm.text.vocabulary import Vocabulary

PIECE = 20
"""Characters per piece: more than two or three words, which anyone might put in the same order."""
BLOCK = 1 << 16
"""Positions hashed at a time; their hashes fit in the processor's cache."""
FACTOR = 0x9E3779B97F4A7C15
"""Odd multiplier with bits set everywhere, which spreads small ids over 64 bits."""
FILTER_BITS = 20
BREAK = "\ud800"
"""Separates stretches: half of a surrogate pair, which no text contains."""


@dataclass(frozen=True)
class Copied:
    """How much of one sample is copied word for word from the training text."""

    pieces: int  # substrings of `PIECE` characters in the sample, one per position
    copied: int  # those that occur in the training text
    longest_chars: int  # length of the longest copied substring; 0 if shorter than a piece

    @property
    def share(self) -> float | None:
        """Fraction of the pieces that are copied, from 0 to 1; None if the sample is shorter than a piece."""
        return self.copied / self.pieces if self.pieces else None


@dataclass(frozen=True)
class TrainingText:
    """The text that a model was trained on, without the held-out part."""

    ids: NDArray[np.unsignedinteger[Any]]
    vocabulary: Vocabulary

    def compare(self, samples: Sequence[str]) -> list[Copied]:
        """Return how much of each sample is copied; this reads the text once, however many samples there are."""
        if not samples:
            return []
        runs = [self.vocabulary.decode(self.ids[start:end]) for start, end in self._chunks(samples)]
        pieces = {piece for sample in samples for piece in _pieces(sample)}
        there = pieces.intersection(piece for run in runs for piece in _pieces(run))
        everything = BREAK.join(dict.fromkeys(runs))
        return [_compare(sample, there, everything) for sample in samples]

    def _chunks(self, samples: Sequence[str]) -> list[tuple[int, int]]:
        """Return the stretches (start, end) of the text whose pieces all have the hash of a piece of the samples."""
        wanted = np.unique(np.concatenate([_hashes(self.encode(sample)) for sample in samples]))
        if not len(wanted) or len(self.ids) < PIECE:
            return []
        shift = np.uint64(64 - FILTER_BITS)
        seen = np.zeros(1 << FILTER_BITS, bool)  # a filter that rules out most positions before the search
        seen[wanted >> shift] = True
        found: list[NDArray[np.intp]] = []
        for start in range(0, len(self.ids) - PIECE + 1, BLOCK):
            hashes = _hashes(self.ids[start : start + BLOCK + PIECE - 1])
            places = np.flatnonzero(seen[hashes >> shift])
            nearest = np.minimum(np.searchsorted(wanted, hashes[places]), len(wanted) - 1)
            found.append(start + places[wanted[nearest] == hashes[places]])
        places = np.concatenate(found)
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
        return [(int(run[0]), int(run[-1]) + PIECE) for run in runs]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.vocabulary.characters)}

    def encode(self, sample: str) -> NDArray[np.intp]:
        """Convert a sample to ids of the text; characters that are not in the text share an id of their own."""
        return np.array([self._ids.get(c, len(self._ids)) for c in sample], np.intp)


class Passages:
    """All passages of a certain length in a training text, as sorted hashes: eight bytes per character."""

    def __init__(self, text: TrainingText, chars: int) -> None:
        """Hash every passage of this many characters."""
        self.text, self.chars = text, chars
        self.hashes = np.unique(_hashes(text.ids, chars)) if len(text.ids) >= chars else np.empty(0, np.uint64)

    def occur_in(self, sample: str) -> bool:
        """Return whether a sample contains such a passage; for one in a trillion, two hashes are equal by chance."""
        if len(sample) < self.chars or not len(self.hashes):
            return False
        wanted = _hashes(self.text.encode(sample), self.chars)
        nearest = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        return bool((self.hashes[nearest] == wanted).any())

    @cached_property
    def _words(self) -> list[str]:
        points = np.array([ord(c) for c in self.text.vocabulary.characters], "<u4")
        return sorted(set(re.findall(r"\w+", points[self.text.ids].tobytes().decode("utf-32-le"))))

    def cut_off(self, line: str) -> bool:
        """Return whether a line ends with the beginning of a word of the text that is not a word of it.

        Names with a mark before them, such as @name, and addresses are not looked up.
        """
        last = re.search(r"(?<![\w@#/.])\w+$", line)
        if last is None:
            return False
        k = bisect.bisect_left(self._words, last[0])
        return k < len(self._words) and self._words[k] != last[0] and self._words[k].startswith(last[0])


def read_training_text(info: TextInfo, val_fraction: float, name: str, setting: str = "novelty") -> TrainingText:
    """Read the text of a run again, without its held-out part; `setting` is the name of the setting that needs it.

    Raises:
        CorpusError: the text is missing, has changed, or came from standard input.
    """
    text = again.read_for(info, name, f"`{setting}`", f"leave out `{setting}`")
    return TrainingText(text.split(val_fraction)[0], text.vocabulary)


def _pieces(text: str) -> Iterator[str]:
    return (text[k : k + PIECE] for k in range(len(text) - PIECE + 1))


def _hashes(ids: NDArray[Any], chars: int = PIECE) -> NDArray[np.uint64]:
    """Return the polynomial hash modulo 2^64 of every passage of this many characters.

    It is combined from the hashes of parts whose lengths are powers of two, such as 20 = 16 + 4.
    """
    part = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(FACTOR)
    whole, done, length = part[:0], 0, 1
    while True:
        if chars & length:
            whole = _join(part, length, whole, done) if done else part
            done += length
        if done == chars:
            return whole
        part = _join(part, length, part, length)
        length *= 2


def _join(left: NDArray[np.uint64], length: int, right: NDArray[np.uint64], more: int) -> NDArray[np.uint64]:
    """Combine hashes of `length` and `more` characters into those of `length` + `more` characters."""
    right = right[length:]
    return left[: len(right)] * np.uint64(pow(FACTOR, more, 1 << 64)) + right


def _compare(sample: str, there: set[str], everything: str) -> Copied:
    """Compare a sample with the copied pieces (`there`) and the stretches of text around them (`everything`)."""
    pieces = list(_pieces(sample))
    longest = 0
    for k, piece in enumerate(pieces):
        if piece in there:
            longest = max(longest, PIECE)
            while k + longest < len(sample) and sample[k : k + longest + 1] in everything:
                longest += 1
    return Copied(len(pieces), sum(piece in there for piece in pieces), longest)
