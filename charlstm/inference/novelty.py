"""Measures how much of a sample is copied word for word from the training text."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.text import again
from charlstm.text.identity import TextInfo
from charlstm.text.ids import MappedIds, TextIds, stored
from charlstm.text.vocabulary import Vocabulary

PIECE = 20
"""Characters per piece: more than two or three words, which anyone might put in the same order."""
BLOCK = 1 << 16
"""Positions looked at at a time; their hashes fit in the processor's cache."""
GRAM = 16
"""Characters that are looked for at every few positions of the text, to find passages that are longer."""
STRETCH_CHARS = 1 << 20
"""Length from which a copied stretch of the text is cut; the parts overlap."""
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

    ids: TextIds
    vocabulary: Vocabulary

    def compare(self, samples: Sequence[str]) -> list[Copied]:
        """Return how much of each sample is copied; this reads the text once, however many samples there are."""
        if not samples:
            return []
        runs = dict.fromkeys(self.decode(start, end) for start, end in self.stretches(samples, PIECE))
        pieces = {piece for sample in samples for piece in _pieces(sample)}
        there = pieces.intersection(piece for run in runs for piece in _pieces(run))
        everything = BREAK.join(runs)
        return [_compare(sample, there, everything) for sample in samples]

    def stretches(self, samples: Sequence[str], chars: int) -> Iterator[tuple[int, int]]:
        """Yield stretches (start, end) of the text that contain all passages of `chars` characters of the samples.

        A passage contains a gram at a position that is a multiple of the stride, so only those are looked at. A
        stretch may also contain no such passage, or begin before the end of the one before.
        """
        m = min(chars, GRAM)
        stride = chars - m + 1
        numbers, _ = stored(self.ids, np.empty(0, np.intp))
        wanted = np.unique(np.concatenate([self._grams(sample, m) for sample in samples]))
        if not len(wanted) or len(numbers) < chars:
            return
        shift = np.uint64(64 - FILTER_BITS)
        seen = np.zeros(1 << FILTER_BITS, bool)  # a filter that rules out most positions before the search
        seen[wanted >> shift] = True
        longest = max(map(len, samples))
        start = end = -1
        for first in range(0, len(numbers) - m + 1, BLOCK * stride):
            hashes = _gram_hashes(numbers[first : first + (BLOCK - 1) * stride + m], m, stride)
            places = np.flatnonzero(seen[hashes >> shift])
            nearest = np.minimum(np.searchsorted(wanted, hashes[places]), len(wanted) - 1)
            for place in (first + stride * places[wanted[nearest] == hashes[places]]).tolist():
                if start < 0 or place - stride + 1 > end:
                    if start >= 0:
                        yield start, end
                    start = max(0, place - stride + 1)
                elif end - start > max(STRETCH_CHARS, 2 * longest):
                    yield start, end
                    start = end - longest
                end = min(len(numbers), place + chars)
        if start >= 0:
            yield start, end

    def _grams(self, sample: str, m: int) -> NDArray[np.uint64]:
        """Return the hashes of all grams of a sample whose characters are all in the text."""
        ids = self.encode(sample)
        whole = np.append(np.flatnonzero(ids == len(self.vocabulary)), len(ids))
        starts = np.append(0, whole[:-1] + 1)
        hashes = [np.empty(0, np.uint64)]
        for start, end in zip(starts.tolist(), whole.tolist(), strict=True):
            if end - start >= m:
                text, numbers = stored(self.ids, ids[start:end])
                hashes.append(_gram_hashes(numbers.astype(text.dtype), m, 1))
        return np.concatenate(hashes)

    def decode(self, start: int, end: int) -> str:
        """Return a part of the text."""
        points: NDArray[np.uint32] = self._points[np.asarray(self.ids[start:end])]
        return points.tobytes().decode("utf-32-le")

    @cached_property
    def _points(self) -> NDArray[np.uint32]:
        return np.array([ord(c) for c in self.vocabulary.characters], "<u4")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i for i, c in enumerate(self.vocabulary.characters)}

    def encode(self, sample: str) -> NDArray[np.intp]:
        """Convert a sample to ids of the text; characters that are not in the text share an id of their own."""
        return np.array([self._ids.get(c, len(self._ids)) for c in sample], np.intp)


class Passages:
    """All passages of a certain length in a training text.

    Of a text in memory they are sorted hashes, eight bytes per character. A mapped text is searched for each sample.
    """

    def __init__(self, text: TrainingText, chars: int) -> None:
        """Prepare to look for passages of this many characters."""
        self.text, self.chars = text, chars
        indexed = not isinstance(text.ids, MappedIds) and len(text.ids) >= chars
        self.hashes = np.unique(passage_hashes(np.asarray(text.ids), chars)) if indexed else np.empty(0, np.uint64)

    def occur_in(self, sample: str) -> bool:
        """Return whether a sample contains such a passage; for one in a trillion, two hashes are equal by chance."""
        if len(sample) < self.chars:
            return False
        if isinstance(self.text.ids, MappedIds):
            passages = set(_pieces(sample, self.chars))
            stretches = (self.text.decode(start, end) for start, end in self.text.stretches([sample], self.chars))
            return any(not passages.isdisjoint(_pieces(run, self.chars)) for run in stretches)
        if not len(self.hashes):
            return False
        wanted = passage_hashes(self.text.encode(sample), self.chars)
        nearest = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        return bool((self.hashes[nearest] == wanted).any())

    @cached_property
    def _words(self) -> list[str]:
        return sorted(set(re.findall(r"\w+", self.text.decode(0, len(self.text.ids)))))

    def cut_off(self, line: str) -> bool:
        """Return whether a line ends with the beginning of a word of the text that is not a word of it.

        Names with a mark before them, such as @name, and addresses are not looked up.
        """
        last = re.search(r"(?<![\w@#/.])\w+$", line)
        if last is None:
            return False
        if isinstance(self.text.ids, MappedIds):
            return self._begins_a_word(last[0])
        k = bisect.bisect_left(self._words, last[0])
        return k < len(self._words) and self._words[k] != last[0] and self._words[k].startswith(last[0])

    def _begins_a_word(self, word: str) -> bool:
        """Return what `cut_off` does, by searching the text until it is found as a word."""
        literal, begins = re.escape(word), False
        whole, longer = (re.compile(rf"{literal}(?<!\w{literal}){more}") for more in (r"(?!\w)", r"\w"))
        chars = len(self.text.ids)
        for start in range(0, chars, STRETCH_CHARS):
            end = min(chars, start + STRETCH_CHARS + len(word) + 1)
            # A line end at either side of the text; elsewhere a character that is part of the next block as well.
            part = self.text.decode(max(0, start - 1), end)
            part = ("" if start else "\n") + part + ("\n" if end == chars else "")
            if any(match.start() > 0 and match.end() < len(part) for match in whole.finditer(part)):
                return False
            begins = begins or any(match.start() > 0 for match in longer.finditer(part))
        return begins


def read_training_text(info: TextInfo, val_fraction: float, name: str, setting: str, cache: str | Path) -> TrainingText:
    """Read the text of a run again, without its held-out part; `setting` is the name of the setting that needs it.

    A long text is looked for in the folder `cache`, and kept there.

    Raises:
        CorpusError: the text is missing, has changed, or came from standard input.
    """
    text = again.read_for(info, name, f"`{setting}`", f"leave out `{setting}`", cache)
    return TrainingText(text.split(val_fraction)[0], text.vocabulary)


def _pieces(text: str, chars: int = PIECE) -> Iterator[str]:
    return (text[k : k + chars] for k in range(len(text) - chars + 1))


def _gram_hashes(numbers: NDArray[Any], m: int, stride: int) -> NDArray[np.uint64]:
    """Return a hash of the m numbers at each multiple of the stride, in a contiguous array.

    It is combined from words of eight bytes, which are read from the array as they are there.
    """
    size, n = numbers.itemsize, (len(numbers) - m) // stride + 1
    per_word = 8 // size
    hashes = np.zeros(n, np.uint64)
    if m < per_word:
        for k in range(m):
            hashes = (hashes << np.uint64(8 * size)) | numbers[k::stride][:n]
        return hashes * np.uint64(FACTOR)
    for at in (*range(0, m - per_word, per_word), m - per_word):  # the last two may overlap
        words = np.ndarray((n,), np.uint64, numbers, at * size, (stride * size,))
        hashes = (hashes ^ words) * np.uint64(FACTOR)
        hashes ^= hashes >> np.uint64(32)
    return hashes * np.uint64(FACTOR)


def passage_hashes(ids: NDArray[Any], chars: int = PIECE) -> NDArray[np.uint64]:
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
