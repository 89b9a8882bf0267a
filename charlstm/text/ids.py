"""Ids of a text: an array in memory, or a file of a long text that is mapped and read as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from charlstm.errors import CorpusError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_CHARS = 1 << 18
"""Characters per block in a pass over a whole text."""


class MappedIds:
    """The ids of a mapped file, or of a part of it.

    A slice is another view, and an array of positions gives an array of ids. `np.asarray` reads a view into memory. The
    file contains numbers of its own (`raw`), so that it serves any vocabulary with the characters of its text.
    """

    def __init__(
        self,
        raw: NDArray[np.unsignedinteger[Any]],
        table: NDArray[np.unsignedinteger[Any]],
        counts: NDArray[np.int64],
        path: Path,
        part: range | None = None,
    ) -> None:
        """Create a view.

        Args:
            raw: the whole file, (chars,), mapped.
            table: the id of each number in the file, (numbers,).
            counts: how often each number occurs in the whole file, (numbers,).
            path: the file, for messages.
            part: the positions of the view; None: all.
        """
        self.file, self.table, self.counts, self.path = raw, table, counts, path
        self.part = range(len(raw)) if part is None else part

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an id."""
        return self.table.dtype

    @property
    def raw(self) -> NDArray[np.unsignedinteger[Any]]:
        """The numbers in the file, (chars,), without a copy."""
        return self.file[self.part.start : self.part.stop]

    def __len__(self) -> int:
        return len(self.part)

    @overload
    def __getitem__(self, key: slice) -> MappedIds: ...
    @overload
    def __getitem__(self, key: NDArray[np.integer[Any]]) -> NDArray[np.unsignedinteger[Any]]: ...
    def __getitem__(self, key: slice | NDArray[np.integer[Any]]) -> MappedIds | NDArray[np.unsignedinteger[Any]]:
        if isinstance(key, slice):
            return MappedIds(self.file, self.table, self.counts, self.path, self.part[key])
        return self._ids(self.raw[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._ids(self.raw).astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (np.asarray(self),)  # another host does not have the file

    def _ids(self, raw: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.unsignedinteger[Any]]:
        try:
            return self.table.take(raw)
        except IndexError:
            raise CorpusError(f"{self.path} is damaged: delete it, and it is made again") from None

    def translated(self, table: NDArray[np.unsignedinteger[Any]]) -> MappedIds:
        """Return this view with table[id] in the place of each id."""
        return MappedIds(self.file, table[self.table], self.counts, self.path, self.part)

    def numbers(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
        """Return the numbers in the file of some ids; -1 for one that the text does not have."""
        inverse = np.full(int(max(self.table.max(), ids.max(initial=0))) + 1, -1, np.intp)
        inverse[self.table] = np.arange(len(self.table))
        numbers: NDArray[np.intp] = inverse[ids]
        return numbers

    def count(self, V: int) -> NDArray[np.int64]:
        """Count each id, (V,), by reading the part or the rest of the file, whichever is shorter."""
        counts = np.zeros(V, np.int64)
        rest = [range(self.part.start), range(self.part.stop, len(self.file))]
        if sum(map(len, rest)) < len(self):
            counts[self.table] = self.counts - sum(self._count(part) for part in rest)
        else:
            counts[self.table] = self._count(self.part)
        return counts

    def _count(self, part: range) -> NDArray[np.int64]:
        numbers = len(self.table)
        total = np.zeros(numbers, np.int64)
        for _, block in blocks(self.file[part.start : part.stop]):
            total += np.bincount(block, minlength=numbers)[:numbers]
        return total


TextIds: TypeAlias = "NDArray[Any] | MappedIds"
"""Ids of a text, (chars,)."""


def count(ids: TextIds, V: int) -> NDArray[np.int64]:
    """Count each id, (V,), in blocks, because bincount converts every id to eight bytes."""
    if isinstance(ids, MappedIds):
        return ids.count(V)
    total = np.zeros(V, np.int64)
    for _, block in blocks(ids):
        total += np.bincount(block, minlength=V)
    return total


def log_frequencies(ids: TextIds, V: int) -> NDArray[np.float64]:
    """Return the logarithm of the frequency of each id, (V,), from add-one smoothed counts."""
    counts = count(ids, V) + 1.0
    frequencies: NDArray[np.float64] = np.log(counts / counts.sum())
    return frequencies


def stored(ids: TextIds, some: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
    """Return a text as it is stored in memory or in its file, without a copy, and some ids in the same form.

    An id that the text in a file does not have becomes -1.
    """
    return (ids.raw, ids.numbers(some)) if isinstance(ids, MappedIds) else (ids, some)


def blocks(ids: TextIds) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the blocks of a text and where they start."""
    for start in range(0, len(ids), BLOCK_CHARS):
        yield start, np.asarray(ids[start : start + BLOCK_CHARS])
