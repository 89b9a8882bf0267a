"""Runs by name: list those in a checkpoint folder, find the file of one, and validate names."""

from __future__ import annotations

import shlex
from pathlib import Path

from charlstm.errors import UsageError, did_you_mean
from charlstm.settings import RUNS
from charlstm.text.sources import BASE, BUILT_IN, bundled_path

SUFFIX, BEST_SUFFIX = ".npz", ".best.npz"
"""NAME.npz is the latest state, to resume; NAME.best.npz is the model with the lowest held-out loss, to sample from."""


def run_names(folder: Path) -> list[str]:
    """Return the names of the runs in a checkpoint folder, newest first, with the bundled model last."""
    changed: dict[str, float] = {}
    for path in folder.glob("*" + SUFFIX) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        name = path.name.removesuffix(BEST_SUFFIX).removesuffix(SUFFIX)
        changed[name] = max(changed.get(name, 0.0), path.stat().st_mtime)
    return sorted(changed, key=lambda name: (name != BUILT_IN, changed[name]), reverse=True)


def check_folder(folder: Path) -> None:
    """Raise a UsageError if a checkpoint folder that the user chose does not exist; the default one may be missing."""
    if folder != RUNS and not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}: give the folder of your runs with `checkpoints`, or leave it out"
        )


def find_run(run: str | None, folder: Path, *, best: bool) -> Path:
    """Return the file of a run, given by name or path; None means the newest run.

    Args:
        run: the name or path of a run, or None.
        folder: the checkpoint folder.
        best: prefer NAME.best.npz to NAME.npz, as sampling does.

    Raises:
        UsageError: the run does not exist; the message suggests the closest names.
    """
    names = run_names(folder)
    bundled = bundled_path("checkpoints", BUILT_IN + SUFFIX)
    if run is None:
        if names:
            run = names[0]
        elif best and bundled.exists():
            return bundled
        else:
            raise UsageError(f"there is no run in {folder} yet: type 'charlstm train CORPUS' to start one")
    if run.endswith(SUFFIX) or "/" in run:
        path = Path(run).expanduser()
        if not path.is_file():
            nearby = [str(p) for p in path.parent.glob("*" + SUFFIX)] if path.parent.is_dir() else []
            hint = did_you_mean(str(path), nearby) or f"give the name of a run or the path of an {SUFFIX} file"
            raise UsageError(f"there is no file {run}: {hint}")
        if not run.endswith(SUFFIX) and not _is_archive(path):
            raise UsageError(_text_not_run(run))
        return path
    endings = (BEST_SUFFIX, SUFFIX) if best else (SUFFIX,)
    for ending in endings:
        if (folder / (run + ending)).is_file():
            return folder / (run + ending)
    if best and run == BUILT_IN and bundled.exists():
        return bundled
    if not best and run in (BUILT_IN, BASE) and bundled_path("checkpoints", run + SUFFIX).exists():
        raise UsageError(
            f"{run!r} is a bundled model, which can't be resumed: train it on a text with 'charlstm train TEXT --init-from {run}'"
        )
    if Path(run).is_file():
        raise UsageError(_text_not_run(run))
    hint = did_you_mean(run, names or [BUILT_IN])
    if not hint:
        hint = f"use one of {', '.join(names[:5])}" if names else "type 'charlstm train CORPUS' to start one"
    raise UsageError(f"there is no run {run!r} in {folder}: {hint}")


def _is_archive(path: Path) -> bool:
    """Return whether a file starts as an .npz file does; True if it can't be read, which the loader reports."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except OSError:
        return True


def _text_not_run(path: str) -> str:
    """Return the message about a file that is given as a run but is not one."""
    stem = Path(path).stem
    return (
        f"{path} is not a run, whose files end in {SUFFIX}: if it is a text, type 'charlstm train {shlex.quote(path)}', "
        f"and then 'charlstm sample {shlex.quote(stem)}'"
    )


def check_name(name: str) -> None:
    """Validate the name of a run, which becomes a file name.

    Raises:
        UsageError: the name is not valid.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\\0") or name.endswith(".best"):
        raise UsageError(f"{name!r} can't be the name of a run: choose a `name` of letters, digits, '-' and '_'")
