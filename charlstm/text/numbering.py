"""Numbers the characters of a text in the order of their first appearance, and writes the numbers into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

BLOCK_CHARS = 1 << 18
PART_CHARS = 1 << 15
"""Characters to number at a time; their arrays fit in the processor's cache."""
CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Encoded:
    """What the header records of a text."""

    chars: int
    sha256: str  # as in `TextInfo`
    characters: str  # in the order of their numbers
    counts: NDArray[np.int64]  # of each
    itemsize: int  # bytes of a number
    notes: tuple[str, ...]


class Numbering:
    """Encodes a text piece by piece; use it as a context manager.

    A number has as few bytes as the number of distinct characters allows. If it outgrows them, what was written is
    widened in place. A thread computes the hash, which takes as long as the rest.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        """Write the numbers into a file, which can be in memory, from byte `start` on."""
        self.file, self.start = file, start
        self.met: list[int] = []  # code points, in the order of their numbers
        self.number = np.full(CODE_POINTS, -1, np.int32)  # of each code point; -1: not met
        self.dtype = np.dtype("<u1")
        self.chars = 0
        self.counts = np.zeros(0, np.int64)
        self.hash = hashlib.sha256()
        self.thread = ThreadPoolExecutor(1)
        self.hashing: Future[None] | None = None
        file.seek(start)

    def __enter__(self) -> Numbering:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown()

    def add(self, piece: str) -> None:
        """Append a piece of text.

        Raises:
            UnicodeEncodeError: it contains half of a surrogate pair.
            OSError: the file can't be written.
        """
        if not piece:
            return
        data = piece.encode()
        self._hash(data)
        if piece.isascii():
            bytes_ = np.frombuffer(data, np.uint8)
            counts = _count_bytes(bytes_)
            present = np.flatnonzero(counts)
            self._meet(present)
            self.counts[self.number[present]] += counts[present]
            self._write(self.number[:128].astype(self.dtype).take(bytes_))
            return
        points = np.frombuffer(piece.encode("utf-32-le"), "<u4")
        for start in range(0, len(points), PART_CHARS):
            part = points[start : start + PART_CHARS]
            numbers = self.number.take(part)
            if numbers.min() < 0:
                self._meet(np.unique(part[numbers < 0]))
                numbers = self.number.take(part)
            self.counts += np.bincount(numbers, minlength=len(self.met))
            self._write(numbers.astype(self.dtype))

    def _write(self, numbers: NDArray[np.unsignedinteger[Any]]) -> None:
        self.file.write(numbers.data)
        self.chars += len(numbers)

    def _hash(self, data: bytes) -> None:
        if self.hashing is not None:
            self.hashing.result()
        self.hashing = self.thread.submit(self.hash.update, data)

    def _meet(self, points: NDArray[np.integer[Any]]) -> None:
        """Number those of some code points that have no number."""
        new = points[self.number[points] < 0].tolist()
        self.number[new] = np.arange(len(self.met), len(self.met) + len(new))
        self.met += new
        self.counts = np.append(self.counts, np.zeros(len(new), np.int64))
        self._widen()

    def _widen(self) -> None:
        """Switch to a wider number if there are too many characters for this one."""
        wide = np.dtype(f"<u{np.min_scalar_type(len(self.met) - 1).itemsize}")
        if wide == self.dtype:
            return
        for first in reversed(range(0, self.chars, BLOCK_CHARS)):  # from the end, where there is room
            count = min(BLOCK_CHARS, self.chars - first)
            self.file.seek(self.start + first * self.dtype.itemsize)
            block = np.frombuffer(self.file.read(count * self.dtype.itemsize), self.dtype)
            self.file.seek(self.start + first * wide.itemsize)
            self.file.write(block.astype(wide).data)
        self.file.seek(self.start + self.chars * wide.itemsize)
        self.dtype = wide

    def finish(self, notes: Sequence[str]) -> Encoded:
        """Return what there is to know about the text."""
        characters = "".join(map(chr, self.met))
        if self.hashing is not None:
            self.hashing.result()
        return Encoded(self.chars, self.hash.hexdigest(), characters, self.counts, self.dtype.itemsize, tuple(notes))


def _count_bytes(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count each byte, (256,); pairs are counted first, which is twice as fast."""
    pairs = np.bincount(data[: len(data) // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts: NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    if len(data) % 2:
        counts[data[-1]] += 1
    return counts


def sort_characters(characters: str) -> tuple[str, NDArray[np.unsignedinteger[Any]]]:
    """Return distinct characters in the order of their code points, and the place of each there."""
    in_order = sorted(characters)
    rank = {c: i for i, c in enumerate(in_order)}
    return "".join(in_order), np.array([rank[c] for c in characters], np.min_scalar_type(len(in_order) - 1))
