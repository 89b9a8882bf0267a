"""The files of a run: a lock that keeps other writers out, and saves that are retried after a failure."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlstm import events
from charlstm.errors import SaveError
from charlstm.nn.types import Arrays
from charlstm.storage import checkpoint
from charlstm.storage.runs import BEST_SUFFIX
from charlstm.training.state import TrainState


@dataclass
class CheckpointSaver:
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
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    def drop_best(self) -> None:
        """Remove the best model of the run that this one overwrote; called once this run is on disk.

        Raises:
            SaveError: the file can't be removed.
        """
        try:
            self.best_path.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{self.best_path} can't be removed: {error.strerror}; delete it by hand") from error

    def save(self, position: dict[str, Any]) -> Iterator[events.Event]:
        """Save the run, and a best model that is not on disk yet; `place` is the position in the run, for events."""
        try:
            checkpoint.save_run(self.path, self.state)
            yield events.Saved(**position, path=str(self.path), best=False)
            if self.best is not None:
                checkpoint.save_model(self.best_path, self.state, self.best)
                self.best = None
                yield events.Saved(**position, path=str(self.best_path), best=True)
            self.failure = None
        except SaveError as error:
            yield self._failed(error, position)

    def save_best(self, position: dict[str, Any]) -> Iterator[events.Event]:
        """Save the current model as the best so far; if that fails, keep a copy to save later."""
        try:
            checkpoint.save_model(self.best_path, self.state)
            self.best = None
            yield events.Saved(**position, path=str(self.best_path), best=True)
        except SaveError as error:
            self.best = {name: p.copy() for name, p in self.state.params.items()}
            yield self._failed(error, position)

    def _failed(self, error: SaveError, position: dict[str, Any]) -> events.Event:
        self.failure = error
        return events.SaveFailed(**position, reason=str(error))
