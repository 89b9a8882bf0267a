"""Writes every file that charlstm writes: a reader, or a power cut, sees the old one or the new one and nothing between."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing
from pathlib import Path
from typing import BinaryIO

from charlstm.errors import SaveError

LONGEST_NAME = 230
"""Longest file name in bytes whose temporary file is named after it; with more, the two together would exceed 255."""

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of a file system that can't flush a folder."""


def write_atomically(path: Path, write: typing.Callable[[BinaryIO], None], where: str = "`checkpoints`") -> None:
    """Write a file atomically: readers see either the old file or the new one, even after a power cut.

    A symbolic link stays, and the file that it points to is replaced. A replaced file keeps its mode, and its owner and
    group where the system allows. What is not a regular file (a device, a FIFO) and what is open as standard output or
    standard error is written to as it is, as a shell's ``>>`` does, because it can't be replaced.

    Args:
        path: the file; replaced if it exists.
        write: writes the contents.
        where: what chooses another location, for the error message.

    Raises:
        SaveError: says why; unless only the sync after the rename failed, a regular file is unchanged.
    """
    try:
        old = _status(path)
        if old is not None and (stream := _stream(path, old)) is not None:
            with open(stream, "wb") as file:
                write(file)
            return
        is_link = (itself := _status(path, follow=False)) is not None and stat.S_ISLNK(itself.st_mode)
        target = Path(os.path.realpath(path, strict=old is not None)) if is_link else path
        _replace(target, old, write)
    except BrokenPipeError:  # a reader may close a pipe when it has enough
        raise
    except OSError as error:
        raise SaveError(
            f"{path} can't be written: {error.strerror or error}; make room or choose another location with {where}"
        ) from error


def _status(path: Path, *, follow: bool = True) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except FileNotFoundError:
        return None


def _stream(path: Path, old: os.stat_result) -> int | None:
    """Return a descriptor to write through, or None for a regular file that can be replaced.

    A file that is open as standard output must not be replaced: what is printed later would go to the old one.
    """
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(old, os.fstat(number)):
                return os.dup(number)
    if stat.S_ISREG(old.st_mode):
        return None
    return os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))


def _replace(path: Path, old: os.stat_result | None, write: typing.Callable[[BinaryIO], None]) -> None:
    """Write a temporary file beside a path without links, and rename it."""
    stem = f".{path.name}" if len(os.fsencode(path.name)) <= LONGEST_NAME else ""
    beside = path.with_name(f"{stem}.{os.getpid()}.tmp")
    try:
        beside.unlink(missing_ok=True)  # of a process that was killed, and had the same number
        private = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        with open(os.open(beside, private, 0o666 if old is None else 0o600), "wb") as file:
            write(file)
            file.flush()
            if old is not None:
                _keep(file.fileno(), old)
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _keep(handle: int, old: os.stat_result) -> None:
    """Give a new file the mode of the old one, and its owner and group if the system allows."""
    if os.name == "nt":
        return
    for owner, group in ((old.st_uid, old.st_gid), (-1, old.st_gid)):
        with contextlib.suppress(OSError):  # only root may give files away
            os.fchown(handle, owner, group)
            break
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(handle, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut; not possible on Windows and some file systems."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
