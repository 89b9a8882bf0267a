"""One writer per run: a lock that the system releases when its process ends."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import time
from pathlib import Path

from charlstm.errors import LockedError, SaveError
from charlstm.storage.runs import RunFiles, obstacle

try:
    import fcntl
except ImportError:  # Windows has none, so concurrent writers are not detected there
    fcntl = None  # type: ignore[assignment]


PATIENCE_S = (0.0, 0.02, 0.05)
"""Waits in seconds before each attempt to take a lock; `trainer_of` holds it for a moment."""
CONTENT = re.compile(rb"(process \d+ on [!-~]*\n?)?")
"""What a lock file contains."""
CONTENT_BYTES = 400
FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""A lock is never taken through a link, and opening a FIFO of that name must not block."""


class Lock:
    """An exclusive lock on a run, released when the process that holds it exits, however it exits.

    It uses flock, which also works on network file systems that support it. The hidden lock file beside the checkpoint
    is never removed; it names the holder's process and host for error messages. If somebody else removes or renames it,
    the system forgets that its name is locked: `keep`, called at every step, locks it again.
    """

    def __init__(self, path: Path) -> None:
        """Lock the run whose checkpoint is `path`.

        Raises:
            LockedError: another process holds the lock.
            SaveError: the folder can't be written to, or something else has the name of the lock file.
        """
        self.handle = -1
        self.path, self.file = path, RunFiles.of(path).lock
        self.handle = self._take()

    def keep(self) -> None:
        """Lock the run again if its lock file has been removed or replaced.

        Raises:
            LockedError: another process locked it meanwhile.
        """
        if self.handle < 0 or _is_at(self.handle, self.file):
            return
        try:
            self.handle, old = self._take(), self.handle
            os.close(old)
        except SaveError:  # the folder is gone, and the next save reports why
            return
        except LockedError as error:
            raise LockedError(f"{self.file} was removed, and {error}; this process stops without saving") from error

    def _take(self) -> int:
        """Return a locked handle of the lock file, which is the one that has its name."""
        for _ in range(10):
            handle = self._open()
            if fcntl is None:
                return handle
            try:
                taken = any(_flock(handle, wait_s) for wait_s in PATIENCE_S)
            except OSError:
                return handle  # the file system does not support locks
            if not taken:
                holder = _holder(handle)
                os.close(handle)
                raise LockedError(
                    f"{self.path} is being trained by {holder}: wait for it, or train under another `name`"
                )
            if _is_at(handle, self.file):
                break
            os.close(handle)  # it was removed after it was opened, so the next process would lock another file
        else:
            raise SaveError(f"{self.file} is removed again and again: find out which program does it")
        content = f"process {os.getpid()} on {socket.gethostname()}\n".encode("ascii", "backslashreplace")
        with contextlib.suppress(OSError):  # on a full disk the holder stays unknown, and the first save reports why
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, content)
            os.ftruncate(handle, len(content))
        return handle

    def _open(self) -> int:
        """Open the lock file, which is created if there is none; whatever else has its name is left as it is."""
        what = "a symbolic link" if self.file.is_symlink() else obstacle(self.file)
        if what in (None, "missing"):
            try:
                handle = os.open(self.file, os.O_RDWR | os.O_CREAT | FLAGS, 0o666)
            except OSError as error:
                raise SaveError(
                    f"{self.file} can't be written: {error.strerror}; choose another folder with `checkpoints`"
                ) from error
            if _is_lock(handle):
                return handle
            os.close(handle)
            what = "another file"
        raise SaveError(f"{self.file} is {what}, where charlstm needs a lock file: move it away")

    def release(self) -> None:
        """Release the lock so that others can write the run."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


def trainer_of(path: Path) -> str | None:
    """Return who is training this run now, as in "process 4711 on host"; None if nobody is, or if it is unknown."""
    if fcntl is None:
        return None
    try:
        handle = os.open(RunFiles.of(path).lock, os.O_RDONLY | FLAGS)
    except OSError:
        return None
    try:
        if not _is_lock(handle):
            return None
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # fails beside a writer; else close releases it
    except BlockingIOError:
        return _holder(handle)
    except OSError:  # the file system does not support locks
        return None
    finally:
        os.close(handle)
    return None


def _flock(handle: int, wait_s: float) -> bool:
    """Try to lock an open file after a wait; return whether it is locked now."""
    time.sleep(wait_s)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Return whether a path is that of an open file, rather than of another that took its place."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _is_lock(handle: int) -> bool:
    """Return whether an open file is a lock file: regular, and with the content of one, or new."""
    status = os.fstat(handle)
    content = _content(handle) if stat.S_ISREG(status.st_mode) else b"-"
    return CONTENT.fullmatch(content) is not None and (content != b"" or status.st_nlink == 1)


def _holder(handle: int) -> str:
    return _content(handle).decode(errors="replace").strip() or "another process"


def _content(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)  # Windows has no pread
    return os.read(handle, CONTENT_BYTES)
