"""Caches long texts as files of ids, so that a text is decoded once and need not fit into memory.

A cache belongs to its texts by their paths, sizes, times and inodes, and to the way in which they were read. One that is
stale, truncated, damaged or of another text is written anew.

The file is a preamble (magic, length and SHA-256 of the header), the numbers of the characters from byte `START` on in
little-endian order, and a header in JSON at the end, because its contents are known only then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlstm.settings import AUTO, NONE, TextOptions
from charlstm.text.ids import MappedIds
from charlstm.text.numbering import Encoded, sort_characters
from charlstm.text.sources import STDIN, expand

try:
    import fcntl
except ImportError:  # Windows has none, and does not replace a file that is mapped: texts are in memory there
    fcntl = None  # type: ignore[assignment]

LEAST_BYTES = 1 << 25
"""Minimum size in bytes of the files of a cached text, 32 MiB: a shorter one is decoded in a moment."""
MAGIC = b"charlstm ids 1\r\n"
PREAMBLE = struct.Struct("<16sQ32s")
START = 4096
TICKS_NS = (20_000_000, 2_000_000_000)
"""How long a file can change without a new time: one tick of the clock, or of a file system that counts whole seconds."""
SAMPLES, SAMPLE_BYTES = 16, 1 << 16
"""A checksum of this many blocks tells whether a file has holes or other contents."""


def folder_of(setting: str | Path) -> Path | None:
    """Return the folder of the caches: a given one, or with "auto" the user's; None with "none", or without a home.

    "auto" is $CHARLSTM_CACHE (which may be "none"), else charlstm in $XDG_CACHE_HOME, else in ~/.cache.
    """
    if str(setting) == AUTO:
        setting = os.environ.get("CHARLSTM_CACHE") or AUTO
    if str(setting) == NONE or fcntl is None:
        return None
    if str(setting) != AUTO:
        return expand(setting).absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (xdg if xdg.is_absolute() else expand("~/.cache")) / "charlstm"
    return folder if folder.is_absolute() else None


def total_bytes(sources: Sequence[str]) -> int | None:
    """Return the size in bytes of the files of a text; None if it is not in regular files alone."""
    try:
        statuses = [Path(source).stat() for source in sources if source != STDIN]
    except OSError:
        return None
    regular = len(statuses) == len(sources) and all(stat.S_ISREG(status.st_mode) for status in statuses)
    return sum(status.st_size for status in statuses) if regular else None


def is_long(sources: Sequence[str]) -> bool:
    """Return whether a text is kept in a cache, if there is a folder for it."""
    size = total_bytes(sources)
    return size is not None and size >= LEAST_BYTES


@dataclass(frozen=True)
class CachedText:
    """A text in a cache."""

    ids: MappedIds
    vocabulary: str  # in the order of code points, as the ids are
    sha256: str
    notes: tuple[str, ...]


class Entry:
    """The place of one text in a folder of caches."""

    def __init__(self, folder: Path, sources: Sequence[str], options: TextOptions, size: int) -> None:
        """Find the place of a text in regular files of `size` bytes; this writes nothing.

        Raises:
            OSError: a file is missing.
        """
        self.sources, self.size = tuple(sources), size
        self.identity = {"reading": asdict(options), "files": self._files()}
        key = hashlib.sha256(json.dumps([self.sources, self.identity["reading"]]).encode()).hexdigest()[:24]
        self.path = folder / f"{key}.ids"

    def _files(self) -> list[list[str | int]]:
        """Return name, size, time and inode of each file."""
        statuses = [(source, Path(source).stat()) for source in self.sources]
        return [[source, status.st_size, status.st_mtime_ns, status.st_ino] for source, status in statuses]

    def load(self) -> CachedText | None:
        """Return the text if it is in the cache, whole and up to date."""
        try:
            with open(self.path, "rb") as file:
                return self._load(file)
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return None

    def _load(self, file: BinaryIO) -> CachedText:
        """Return the text in an open cache; raise ValueError if it is not whole, or not this text as it is now."""
        size = os.fstat(file.fileno()).st_size
        magic, length, digest = PREAMBLE.unpack(file.read(PREAMBLE.size))
        if magic != MAGIC or length > size - START:
            raise ValueError("not a cache, or truncated")
        file.seek(size - length)
        header = file.read(length)
        if hashlib.sha256(header).digest() != digest:
            raise ValueError("damaged")
        facts = json.loads(header)
        if {key: facts[key] for key in self.identity} != self.identity:
            raise ValueError("of another text, or stale")
        raw = np.memmap(file, np.dtype(f"<u{facts['itemsize']}"), "r", START, (facts["chars"],)).view(np.ndarray)
        if START + raw.nbytes + length != size or _checksum(file, START + raw.nbytes) != facts["checksum"]:
            raise ValueError("damaged")
        vocabulary, table = sort_characters(facts["characters"])
        ids = MappedIds(raw, table, np.array(facts["counts"], np.int64), self.path)
        return CachedText(ids, vocabulary, facts["sha256"], tuple(facts["notes"]))

    def write(self, encode: Callable[[BinaryIO, int], Encoded]) -> CachedText:
        """Encode the text into the cache and return it; if another process does so now, wait for that.

        Args:
            encode: writes the numbers of a text into a file, from an offset on.

        Raises:
            OSError: it can't be written.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_writer(self.path.with_suffix(".tmp")) as (file, path):
            if (cached := self.load()) is not None:
                return cached
            file.truncate(0)
            if shutil.disk_usage(self.path.parent).free < self.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._wait_for_clock()
            made = encode(file, START)
            if self._files() != self.identity["files"]:  # changed meanwhile: right for this process, stale for others
                self.identity["files"] = []
            self._finish(file, made)
            path.replace(self.path)
            file.seek(0)
            return self._load(file)

    def _wait_for_clock(self) -> None:
        """Wait until a change of a file would also change its time, if it has just been written."""
        for _, _, changed_ns, _ in self._files():
            tick_ns = TICKS_NS[int(changed_ns) % 1_000_000_000 == 0]
            wait_ns = int(changed_ns) + tick_ns - time.time_ns()
            if 0 < wait_ns <= tick_ns:
                time.sleep(wait_ns / 1e9)

    def _finish(self, file: BinaryIO, made: Encoded) -> None:
        """Write header and preamble after the numbers, and flush the file to disk."""
        end = START + made.chars * made.itemsize
        facts = self.identity | asdict(made) | {"counts": made.counts.tolist(), "checksum": _checksum(file, end)}
        header = json.dumps(facts).encode()
        file.seek(end)
        file.write(header)
        file.truncate()
        file.seek(0)
        file.write(PREAMBLE.pack(MAGIC, len(header), hashlib.sha256(header).digest()))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file that no other process writes; wait for one that does. It is removed unless it was renamed."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(os.open(path, flags, 0o600), "r+b"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # the file system does not support locks: take a name that nobody else takes
                path.unlink(missing_ok=True)
                path = path.with_suffix(f".{socket.gethostname()}.{os.getpid()}.tmp")
                file = stack.enter_context(open(os.open(path, flags, 0o600), "r+b"))
            if not _is_at(file, path):
                continue
            try:
                yield file, path
            finally:
                if _is_at(file, path):
                    with contextlib.suppress(OSError):
                        path.unlink()
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Return whether a path is that of an open file, rather than of another that took its place."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except OSError:
        return False


def _checksum(file: BinaryIO, end: int) -> int:
    """Return a checksum of `SAMPLES` blocks of the numbers in a file, which end at `end`."""
    checksum = 0
    for k in range(SAMPLES):
        start = START + max(0, end - START - SAMPLE_BYTES) * k // (SAMPLES - 1)
        file.seek(start)
        checksum = zlib.crc32(file.read(min(SAMPLE_BYTES, end - start)), checksum)
    return checksum
