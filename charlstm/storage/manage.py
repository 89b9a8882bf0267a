"""Rename and remove runs with all their files."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from charlstm.errors import LockedError, SaveError, UsageError
from charlstm.storage.lock import Lock, trainer_of
from charlstm.storage.runs import RunFiles, check_folder, check_name, find_run, is_bundled


def remove_runs(names: Sequence[str], folder: Path) -> list[Path]:
    """Remove all files of some runs, or of none if one of them can't be removed; return the paths of their checkpoints.

    Raises:
        UsageError: a run does not exist.
        LockedError: it is being trained.
        SaveError: a file can't be removed.
    """
    with contextlib.ExitStack() as owned:
        paths = [path for name in names for path in owned.enter_context(_owned(name, folder, "removed"))]
        for path in paths:
            for leftover in folder.glob(f".{glob.escape(path.name)}.*.tmp"):
                leftover.unlink()
            path.unlink()
        for name in names:
            _remove_lock(RunFiles.named(name, folder))
    return paths


def rename_run(name: str, new: str, folder: Path) -> list[Path]:
    """Rename all files of a run; return the new paths of its checkpoints.

    Raises:
        UsageError: the run does not exist, or the new name is taken or is not valid.
        LockedError: it is being trained.
        SaveError: a file can't be renamed.
    """
    check_name(new)
    if new == name:
        raise UsageError(f"the run {name!r} has that name already: choose another one")
    files, target = RunFiles.named(name, folder), RunFiles.named(new, folder)
    with _owned(name, folder, "renamed") as paths:
        lock = Lock(target.latest)  # nobody may start a run of that name meanwhile
        try:
            if taken := _checkpoints(new, folder):
                raise UsageError(f"the run {new!r} exists already ({taken[0]}): choose another name")
            renamed = [target.best if path == files.best else target.latest for path in paths]
            for path, new_path in zip(paths, renamed, strict=True):
                path.rename(new_path)
            _remove_lock(files)
        finally:
            lock.release()
    return renamed


@contextlib.contextmanager
def _owned(name: str, folder: Path, what: str) -> Iterator[list[Path]]:
    """Within this context, no other process may train a run; the value is its files, the best model first."""
    check_folder(folder)
    files, paths = RunFiles.named(name, folder), _checkpoints(name, folder)
    if not paths:
        path = find_run(name, folder, best=True)  # raises UsageError if there is nothing of that name
        raise UsageError(f"{path} can't be {what} by its path, or is bundled: give the name of a run in {folder}")
    trainer = trainer_of(files.latest)
    busy = f"the run {name!r} can't be {what}, because it is being trained by {trainer or 'another process'}: stop that first"
    if trainer is not None:
        raise LockedError(busy)
    try:
        lock = Lock(files.latest)
    except LockedError as error:
        raise LockedError(busy) from error
    try:
        yield paths
    except OSError as error:
        raise SaveError(
            f"{error.filename or folder} can't be {what}: {error.strerror or error}; check the permissions of {folder}"
        ) from error
    finally:
        lock.release()


def _remove_lock(files: RunFiles) -> None:
    with contextlib.suppress(PermissionError):  # Windows keeps a file that is open
        files.lock.unlink(missing_ok=True)


def _checkpoints(name: str, folder: Path) -> list[Path]:
    if "/" in name or name.endswith(".best"):
        return []
    files = RunFiles.named(name, folder)
    return [path for path in (files.best, files.latest) if path.is_file() and not is_bundled(path)]
