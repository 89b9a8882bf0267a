"""The files of a run: a lock that keeps other writers out, and saves that are retried after a failure."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlstm import events
from charlstm.errors import CheckpointError, SaveError
from charlstm.nn.types import Arrays
from charlstm.storage import checkpoint
from charlstm.storage.lock import Lock
from charlstm.storage.runs import RunFiles, obstacle
from charlstm.training.state import TrainState


def check_replaceable(files: RunFiles) -> None:
    """Check that a save would replace nothing but checkpoints.

    A save follows a symbolic link and replaces what it leads to, which must be a checkpoint already.

    Raises:
        SaveError: a file of the run is something else, or a link that leads to something else.
    """
    for path in (files.latest, files.best):
        if (what := obstacle(path)) not in (None, "missing"):
            raise SaveError(f"{path} is {what}, not a checkpoint: move it away")
        if path.is_symlink():
            try:
                checkpoint.read_header(path)
            except CheckpointError as error:
                raise SaveError(
                    f"{path} is a symbolic link to a file that is not a checkpoint: remove the link"
                ) from error


@dataclass
class CheckpointSaver:
    """Saves a run and its best model. A failed save is reported as an event and retried at the next save."""

    files: RunFiles
    state: TrainState
    lock: Lock
    failure: SaveError | None = None  # error of the last attempt; None once one succeeds
    best: Arrays | None = None  # the best model's weights, while they are not on disk

    def clean_up(self) -> None:
        """Remove temporary files of a process that was killed while saving; only the lock's holder may call this."""
        for path in (self.files.latest, self.files.best):
            path = Path(os.path.realpath(path))
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*.tmp"):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    def drop_old_best(self) -> None:
        """Remove the best model of the run that this one replaced; called once this run is on disk.

        Of a symbolic link, the link is removed, and what it leads to stays.

        Raises:
            SaveError: the file can't be removed.
        """
        if self.state.best_step is not None:
            return  # it is this run's own
        try:
            self.files.best.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{self.files.best} can't be removed: {error.strerror}; delete it by hand") from error

    def save_run(self) -> None:
        """Save the run.

        Raises:
            SaveError: the file can't be written.
            LockedError: another process took the run over.
        """
        self.lock.keep()
        checkpoint.save_run(self.files.latest, self.state)

    def save(self, position: dict[str, Any]) -> Iterator[events.Event]:
        """Save the run, and a best model that is not on disk yet; `position` is that in the run, for events."""
        try:
            self.save_run()
            yield events.Saved(**position, path=str(self.files.latest), best=False)
            if self.best is not None:
                checkpoint.save_model(self.files.best, self.state, self.best)
                self.best = None
                yield events.Saved(**position, path=str(self.files.best), best=True)
            self.failure = None
        except SaveError as error:
            yield self._failed(error, position)

    def save_best(self, position: dict[str, Any]) -> Iterator[events.Event]:
        """Save the current model as the best so far; if that fails, keep a copy to save later."""
        self.lock.keep()
        try:
            checkpoint.save_model(self.files.best, self.state)
            self.best = None
            yield events.Saved(**position, path=str(self.files.best), best=True)
        except SaveError as error:
            self.best = {name: p.copy() for name, p in self.state.averaged.items()}
            yield self._failed(error, position)

    def _failed(self, error: SaveError, position: dict[str, Any]) -> events.Event:
        self.failure = error
        return events.SaveFailed(**position, reason=str(error))
