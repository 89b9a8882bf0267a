"""Loads the best model of a run."""

from __future__ import annotations

from pathlib import Path

from charlstm.errors import CheckpointError
from charlstm.storage import checkpoint
from charlstm.storage.runs import RunFiles, check_folder, find_run


def load_best(run: str | None, folder: Path) -> checkpoint.Checkpoint:
    """Load the best model of a run, given by name or path; None means the newest run.

    Raises:
        UsageError: the run, or the folder, does not exist.
        CheckpointError: its file can't be used; the message says if another file of the run can.
    """
    check_folder(folder)
    path = find_run(run, folder, best=True)
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        latest = RunFiles.of(path).latest
        if latest == path or not _is_whole(latest):
            raise
        raise CheckpointError(f"{error}; {latest} is whole: give that path instead of the name") from error


def whole_best(path: Path) -> Path | None:
    """Return the file with the best model of the run in `path`, if it is another one and can be used."""
    best = RunFiles.of(path).best
    return best if path != best and _is_whole(best) else None


def _is_whole(path: Path) -> bool:
    try:
        checkpoint.read_header(path)
    except CheckpointError:
        return False
    return True
