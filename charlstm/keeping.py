"""A run's files: one writer at a time, saved as often as may be, and tried again where that fails."""

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
except ImportError:  # Windows has none: there two writers are not kept apart
    fcntl = None  # type: ignore[assignment]


PATIENCE_S = (0.0, 0.02, 0.05)
"""A lock is tried after each of these waits, because whoever asks about it (`writer_of`) has it for a moment."""


class Lock:
    """The right to write a run; it ends with the process that holds it, however that ends.

    The system keeps it (flock), on network file systems too where these know it; the hidden file beside the run stays, and holds the
    holder's number and host, for whoever comes second.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock of the run whose file this is.

        Raises:
            LockedError: another process has it.
            SaveError: the folder can't be written to.
        """
        self.handle = -1
        beside = _lock_of(path)
        try:
            self.handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise SaveError(
                f"{beside} can't be written: {error.strerror}; name another place with --checkpoints"
            ) from error
        if fcntl is None:
            return
        try:
            taken = any(self._take(wait_s) for wait_s in PATIENCE_S)
        except OSError:
            return  # a file system that knows no locks
        if not taken:
            holder = _holder(self.handle)
            self.release()
            raise LockedError(f"{path} is being trained by {holder}: wait for it, or train under another --name")
        with contextlib.suppress(OSError):  # a full disk: who holds it can't be told, and the first save will say why
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
        """Let others write the run."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


def writer_of(path: Path) -> str | None:
    """Who trains the run of this file at the moment, as in "process 4711 on host"; None if nobody does, or it can't be told."""
    if fcntl is None:
        return None
    try:
        handle = os.open(_lock_of(path), os.O_RDONLY | os.O_NONBLOCK)  # a folder of strangers may have a pipe there
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # refused beside a writer; else it ends with the handle
    except BlockingIOError:
        return _holder(handle)
    except OSError:  # a file system that knows no locks
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
    """Saves a run. What could not be saved is said, kept in memory, and tried again the next time."""

    name: str
    path: Path
    state: TrainState
    failure: SaveError | None = None  # of the last attempt, until one succeeds
    best: Arrays | None = None  # a best model that is not on disk yet

    @property
    def best_path(self) -> Path:
        """Where the model of the lowest validation loss is kept."""
        return self.path.with_name(self.name + BEST_SUFFIX)

    def clean_up(self) -> None:
        """Remove what a process that was killed while saving left behind; only the lock's holder may."""
        for path in (self.path, self.best_path):
            for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def drop_best(self) -> None:
        """Remove a best model that is not this run's: of the run that it overwrote, which stays whole until this one is on disk.

        Raises:
            SaveError: it can't be removed.
        """
        try:
            self.best_path.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{self.best_path} can't be removed: {error.strerror}; remove it yourself") from error

    def save(self, place: dict[str, Any]) -> Iterator[events.Event]:
        """Save the run, and a best model that waits; `place` is where the run stands."""
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
        """Save the model as it is now, which is the best so far."""
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
