"""Runs by name: which there are in a checkpoint folder, which is meant, and what one may be called."""

from __future__ import annotations

from pathlib import Path

from charlstm import finding
from charlstm.errors import UsageError

SUFFIX, BEST_SUFFIX = ".npz", ".best.npz"
"""NAME.npz is the latest state, to resume; NAME.best.npz the model of the lowest validation loss, to sample from."""


def run_names(folder: Path) -> list[str]:
    """The runs in a checkpoint folder, newest first; a model that came with the program stands behind those made here."""
    changed: dict[str, float] = {}
    for path in folder.glob("*" + SUFFIX) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        name = path.name.removesuffix(BEST_SUFFIX).removesuffix(SUFFIX)
        changed[name] = max(changed.get(name, 0.0), path.stat().st_mtime)
    return sorted(changed, key=lambda name: (name != finding.BUILT_IN, changed[name]), reverse=True)


def find_run(run: str | None, folder: Path, *, best: bool) -> Path:
    """The file of a run: by name, by path, or with None the newest there is.

    Args:
        best: prefer NAME.best.npz, as sampling does, to NAME.npz.

    Raises:
        UsageError: there is no such run; names those that come nearest.
    """
    names = run_names(folder)
    shipped = finding.shipped("checkpoints", finding.BUILT_IN + SUFFIX)
    if run is None:
        if names:
            run = names[0]
        elif best and shipped.exists():
            return shipped
        else:
            raise UsageError(f"there is no run in {folder} yet: type 'charlstm train CORPUS' to make one")
    if run.endswith(SUFFIX) or "/" in run:
        path = Path(run).expanduser()
        if not path.is_file():
            nearby = [str(p) for p in path.parent.glob("*" + SUFFIX)] if path.parent.is_dir() else []
            hint = finding.nearest(str(path), nearby) or f"give a run's name or the path of an {SUFFIX} file"
            raise UsageError(f"there is no file {run}: {hint}")
        return path
    endings = (BEST_SUFFIX, SUFFIX) if best else (SUFFIX,)
    for ending in endings:
        if (folder / (run + ending)).is_file():
            return folder / (run + ending)
    if best and run == finding.BUILT_IN and shipped.exists():
        return shipped
    hint = finding.nearest(run, names or [finding.BUILT_IN])
    if not hint:
        hint = f"there is {', '.join(names[:5])}" if names else "type 'charlstm train CORPUS' to make one"
    raise UsageError(f"there is no run {run!r} in {folder}: {hint}")


def check_name(name: str) -> None:
    """Refuse a run's name that could not be a file's.

    Raises:
        UsageError: says what a name may be.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\\0") or name.endswith(".best"):
        raise UsageError(f"{name!r} can't be the name of a run: take letters, digits, '-' and '_' (--name)")
