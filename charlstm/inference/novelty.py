"""Measures how much of a sample is copied word for word from the training text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import CorpusError
from charlstm.text import corpus
from charlstm.text.corpus import TextInfo
from charlstm.text.sources import STDIN, find_again
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
        wanted = np.unique(np.concatenate([_hashes(self._encode(sample)) for sample in samples]))
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

    def _encode(self, sample: str) -> NDArray[np.intp]:
        """Convert a sample to ids of the text; characters that are not in the text share an id of their own."""
        ids = {c: i for i, c in enumerate(self.vocabulary.characters)}
        return np.array([ids.get(c, len(ids)) for c in sample], np.intp)


def read_training_text(info: TextInfo, val_fraction: float, name: str) -> TrainingText:
    """Read the text of a run again, without its held-out part.

    Raises:
        CorpusError: the text is missing, has changed, or came from standard input.
    """
    if STDIN in info.sources:
        raise CorpusError(f"the text of {name!r} came from standard input and can't be compared: leave out `novelty`")
    try:
        text = corpus.read(find_again(info.sources), info.options)
    except CorpusError as error:
        raise CorpusError(f"the text of {name!r} can't be compared: {error}") from error
    if text.info.sha256 != info.sha256:
        raise CorpusError(
            f"the text of {name!r} has changed ({info.chars:,} characters then, {text.info.chars:,} now): "
            f"restore the old one, or leave out `novelty`"
        )
    return TrainingText(text.split(val_fraction)[0], text.vocabulary)


def _pieces(text: str) -> Iterator[str]:
    return (text[k : k + PIECE] for k in range(len(text) - PIECE + 1))


def _hashes(ids: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the polynomial hash modulo 2^64 of every piece, combined from those of its parts: 20 = 16 + 4."""
    h1 = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(FACTOR)
    h2 = _join(h1, 1, h1, 1)
    h4 = _join(h2, 2, h2, 2)
    h8 = _join(h4, 4, h4, 4)
    h16 = _join(h8, 8, h8, 8)
    return _join(h16, 16, h4, 4)


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
