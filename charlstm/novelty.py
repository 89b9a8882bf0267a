"""How much of a sample is copied: which of its pieces stand in the text that the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.vocabulary import Vocabulary

PIECE = 20
"""Characters in a piece: more than two or three words, which anybody might put in the same order."""
BLOCK = 1 << 16
"""Places of the text that are looked at together; their hashes stay in the processor's cache."""
FACTOR = 0x9E3779B97F4A7C15
"""Odd, with bits everywhere: multiplication by it spreads small ids over 64 bits."""
FILTER_BITS = 20
BREAK = "\ud800"
"""Between stretches: half a surrogate pair, which no text has in it."""


@dataclass(frozen=True)
class Copied:
    """How much of one sample stands in the training text, word for word."""

    pieces: int  # all runs of `PIECE` characters in the sample, one from each place
    copied: int  # those that stand in the training text
    longest_chars: int  # the longest run that does; 0 where it is shorter than a piece

    @property
    def share(self) -> float | None:
        """Of the pieces, those that are copied: 0 is all new, 1 all copied. None if the sample is shorter than a piece."""
        return self.copied / self.pieces if self.pieces else None


@dataclass(frozen=True)
class TrainingText:
    """The text that a model was trained on, without what was held out."""

    ids: NDArray[np.unsignedinteger[Any]]
    vocabulary: Vocabulary

    def compare(self, samples: Sequence[str]) -> list[Copied]:
        """How much of each sample is copied, found in one pass over the text, whatever the number of samples."""
        if not samples:
            return []
        runs = [self.vocabulary.decode(self.ids[start:end]) for start, end in self._stretches(samples)]
        pieces = {piece for sample in samples for piece in _pieces(sample)}
        there = pieces.intersection(piece for run in runs for piece in _pieces(run))
        everything = BREAK.join(dict.fromkeys(runs))
        return [_compare(sample, there, everything) for sample in samples]

    def _stretches(self, samples: Sequence[str]) -> list[tuple[int, int]]:
        """Where in the text a piece of the samples stands (or one of the same hash): stretches as long as can be."""
        wanted = np.unique(np.concatenate([_hashes(self._encode(sample)) for sample in samples]))
        if not len(wanted) or len(self.ids) < PIECE:
            return []
        shift = np.uint64(64 - FILTER_BITS)
        seen = np.zeros(1 << FILTER_BITS, bool)  # of most places it says at once that nothing begins there
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

    def _encode(self, sample: str) -> NDArray[np.intp]:
        """A sample as ids of the text; a character that is not in the text has one of its own."""
        ids = {c: i for i, c in enumerate(self.vocabulary.characters)}
        return np.array([ids.get(c, len(ids)) for c in sample], np.intp)


def _pieces(text: str) -> Iterator[str]:
    return (text[k : k + PIECE] for k in range(len(text) - PIECE + 1))


def _hashes(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """The polynomial hash modulo 2^64 of every piece, from those of its halves: 20 = 16 + 4."""
    h1 = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(FACTOR)
    h2 = _join(h1, 1, h1, 1)
    h4 = _join(h2, 2, h2, 2)
    h8 = _join(h4, 4, h4, 4)
    h16 = _join(h8, 8, h8, 8)
    return _join(h16, 16, h4, 4)


def _join(left: NDArray[np.uint64], length: int, right: NDArray[np.uint64], more: int) -> NDArray[np.uint64]:
    """Hashes of `length` + `more` characters from those of both parts."""
    right = right[length:]
    return left[: len(right)] * np.uint64(pow(FACTOR, more, 1 << 64)) + right


def _compare(sample: str, there: set[str], everything: str) -> Copied:
    """`there` are the pieces that are copied, `everything` the stretches of the text that hold them."""
    pieces = list(_pieces(sample))
    longest = 0
    for k, piece in enumerate(pieces):
        if piece in there:
            longest = max(longest, PIECE)
            while k + longest < len(sample) and sample[k : k + longest + 1] in everything:
                longest += 1
    return Copied(len(pieces), sum(piece in there for piece in pieces), longest)
