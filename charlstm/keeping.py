"""The files of a run: a lock that keeps other writers out, and saves that are retried after a failure."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlstm import checkpoint, events
from charlstm.errors import LockedError, SaveError
from charlstm.nn.types import Arrays
from charlstm.runs import BEST_SUFFIX, SUFFIX
from charlstm.state import TrainState

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
                f"{beside} can't be written: {error.strerror}; choose another folder with --checkpoints"
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
            raise LockedError(f"{path} is being trained by {holder}: wait for it, or train under another --name")
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


def writer_of(path: Path) -> str | None:
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


@dataclass
class Keeper:
    """Saves a run and its best model. A failed save is reported as an event and retried at the next save."""

    name: str
    path: Path
    state: TrainState
    failure: SaveError | None = None  # error of the last attempt; None once one succeeds
    best: Arrays | None = None  # the best model's weights, while they are not on disk

    @property
    def best_path(self) -> Path:
        """Path of the checkpoint with the lowest held-out loss."""
        return self.path.with_name(self.name + BEST_SUFFIX)

    def clean_up(self) -> None:
        """Remove temporary files of a process that was killed while saving; only the lock's holder may call this."""
        for path in (self.path, self.best_path):
            for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def drop_best(self) -> None:
        """Remove the best model of the run that this one overwrote; called once this run is on disk.

        Raises:
            SaveError: the file can't be removed.
        """
        try:
            self.best_path.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{self.best_path} can't be removed: {error.strerror}; delete it by hand") from error

    def save(self, place: dict[str, Any]) -> Iterator[events.Event]:
        """Save the run, and a best model that is not on disk yet; `place` is the position in the run, for events."""
        try:
            checkpoint.save_run(self.path, self.state)
            yield events.Saved(**place, path=str(self.path), best=False)
            if self.best is not None:
                checkpoint.save_model(self.best_path, self.state, self.best)
                self.best = None
                yield events.Saved(**place, path=str(self.best_path), best=True)
            self.failure = None
        except SaveError as error:
            yield self._failed(error, place)

    def save_best(self, place: dict[str, Any]) -> Iterator[events.Event]:
        """Save the current model as the best so far; if that fails, keep a copy to save later."""
        try:
            checkpoint.save_model(self.best_path, self.state)
            self.best = None
            yield events.Saved(**place, path=str(self.best_path), best=True)
        except SaveError as error:
            self.best = {name: p.copy() for name, p in self.state.params.items()}
            yield self._failed(error, place)

    def _failed(self, error: SaveError, place: dict[str, Any]) -> events.Event:
        self.failure = error
        return events.Unsaved(**place, reason=str(error))
