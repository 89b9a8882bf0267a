"""One writer per run: a lock that the system releases when its process ends."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from charlstm.errors import LockedError, SaveError
from charlstm.storage.runs import SUFFIX

try:
    import fcntl
except ImportError:  # Windows has none, so concurrent writers are not detected there
    fcntl = None  # type: ignore[assignment]


PATIENCE_S = (0.0, 0.02, 0.05)
"""Waits in seconds before each attempt to take a lock; `writer_of` holds it for a moment."""


class Lock:
    """An exclusive lock on a run, released when the process that holds it exits, however it exits.

    It uses flock, which also works on network file systems that support it. The hidden lock file beside the checkpoint
    is never removed; it names the holder's process and host for error messages.
    """

    def __init__(self, path: Path) -> None:
        """Lock the run whose checkpoint is `path`.

        Raises:
            LockedError: another process holds the lock.
            SaveError: the folder can't be written to.
        """
        self.handle = -1
        beside = _lock_of(path)
        try:
            self.handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SaveError(
                f"{beside} can't be written: {error.strerror}; choose another folder with `checkpoints`"
            ) from error
        if fcntl is None:
            return
        try:
            taken = any(self._take(wait_s) for wait_s in PATIENCE_S)
        except OSError:
            return  # the file system does not support locks
        if not taken:
            holder = _holder(self.handle)
            self.release()
            raise LockedError(f"{path} is being trained by {holder}: wait for it, or train under another `name`")
        with contextlib.suppress(OSError):  # on a full disk the holder stays unknown, and the first save reports why
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _take(self, wait_s: float) -> bool:
        time.sleep(wait_s)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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
        handle = os.open(_lock_of(path), os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name must not block
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # fails beside a writer; else close releases it
    except BlockingIOError:
        return _holder(handle)
    except OSError:  # the file system does not support locks
        return None
    finally:
        os.close(handle)
    return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name.removesuffix(SUFFIX)}.lock")


def _holder(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
