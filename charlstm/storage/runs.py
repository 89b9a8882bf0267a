"""Runs by name: list those in a checkpoint folder, find the files of one, and validate names."""

from __future__ import annotations

import errno
import filecmp
import os
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlstm.errors import UsageError, did_you_mean
from charlstm.settings import RUNS
from charlstm.text.sources import BASE, BUILT_IN, bundled_path, expand

SUFFIX, BEST_SUFFIX = ".npz", ".best.npz"
"""NAME.npz is the latest state, to resume; NAME.best.npz is the model with the lowest held-out loss, to sample from."""
LONGEST_NAME = 200
"""Maximum length of a run's name in bytes: files are named after it, and most file systems allow them 255."""
KINDS: dict[Callable[[int], bool], str] = {
    stat.S_ISDIR: "a directory",
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, whether or not they exist."""

    name: str  # of the run
    latest: Path  # the latest state, to resume
    best: Path  # the model with the lowest held-out loss, to sample from

    @classmethod
    def named(cls, name: str, folder: Path) -> RunFiles:
        """Return the files of the run with this name in a checkpoint folder."""
        return cls(name, folder / (name + SUFFIX), folder / (name + BEST_SUFFIX))

    @classmethod
    def of(cls, path: Path) -> RunFiles:
        """Return the files of the run that a checkpoint belongs to."""
        for suffix in (BEST_SUFFIX, SUFFIX):
            if (name := path.name.removesuffix(suffix)) and name != path.name:
                return cls.named(name, path.parent)
        return cls(path.name, path, path.with_name(path.name + BEST_SUFFIX))  # someone renamed it

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name the run in a command: its name, and the option for its folder unless that is the default one."""
        folder = self.latest.parent
        return (self.name,) if folder == RUNS else (self.name, "--checkpoints", str(folder))

    @property
    def typed(self) -> str:
        """These words as one types them."""
        return shlex.join(self.words)

    @property
    def lock(self) -> Path:
        """The lock file: beside the latest state itself, so that it is the same for every link to it."""
        latest = Path(os.path.realpath(self.latest)) if self.latest.is_symlink() else self.latest
        return latest.with_name(f".{latest.name.removesuffix(SUFFIX)}.lock")


def obstacle(path: Path) -> str | None:
    """Return what there is in place of a file that can be read, as in "a directory"; None for a regular file.

    A missing file is "missing", and a link that leads nowhere is "a dangling symbolic link".
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG and path.is_symlink():
            return "a dangling symbolic link"
        return "missing" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else error.strerror or str(error)
    return None if stat.S_ISREG(mode) else next((kind for test, kind in KINDS.items() if test(mode)), "not a file")


def run_names(folder: Path) -> list[str]:
    """Return the names of the runs in a checkpoint folder, newest first, with the bundled models last."""
    return list_runs(folder)[0]


def list_runs(folder: Path) -> tuple[list[str], dict[Path, str]]:
    """Return the names of the runs in a checkpoint folder, newest first, with the bundled models last; and what else is named so.

    A directory, a FIFO or a dangling link whose name ends in .npz is not a run: the second result says what each is.
    """
    changed: dict[str, float] = {}
    own: set[str] = set()  # names of runs that are not bundled
    skipped: dict[Path, str] = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        if not entry.name.endswith(SUFFIX) or entry.name.startswith("."):
            continue
        path = folder / entry.name
        try:
            status = entry.stat()
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            if (what := obstacle(path)) not in (None, "missing"):  # removed meanwhile
                skipped[path] = str(what)
            continue
        name = RunFiles.of(path).name
        changed[name] = max(changed.get(name, 0.0), status.st_mtime)
        if not is_bundled(path):
            own.add(name)
    order = {name: (1, time_s) if name in own else (0, name == BUILT_IN) for name, time_s in changed.items()}
    return sorted(changed, key=order.__getitem__, reverse=True), skipped


def is_bundled(path: Path) -> bool:
    """Return whether a file is a bundled model, or a copy of one, as in a clone of the project that was installed."""
    if path.name not in (BUILT_IN + SUFFIX, BASE + SUFFIX):
        return False
    try:
        return filecmp.cmp(path, bundled_path("checkpoints", path.name), shallow=False)
    except OSError:
        return False


def check_folder(folder: Path) -> None:
    """Raise a UsageError if a checkpoint folder that the user chose does not exist; the default one may be missing."""
    if folder != RUNS and not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}: give the folder of your runs with `checkpoints`, or leave it out"
        )


def skipped(folder: Path) -> str:
    """Return one sentence on what was skipped in search of the newest run, or an empty string."""
    others = [f"{path.name} is {what}" for path, what in sorted(list_runs(folder)[1].items())]
    return f"skipped in {folder}: {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}" if others else ""


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
        if names and not is_bundled(RunFiles.named(names[0], folder).latest):
            run = names[0]
        elif best and bundled.exists():
            return bundled
        else:
            raise UsageError(f"there is no run in {folder} yet: type 'charlstm train CORPUS' to start one")
    elif run.endswith(SUFFIX) or "/" in run:
        return _existing(run)
    elif len(os.fsencode(run)) > LONGEST_NAME:
        raise UsageError(f"{run[:20]!r}… is too long for the name of a run: type 'charlstm runs' to see all")
    files = RunFiles.named(run, folder)
    wanted = (files.best, files.latest) if best else (files.latest,)
    for path in wanted:
        if path.is_file() and (best or not is_bundled(path)):
            return path
    if best and run in (BUILT_IN, BASE) and bundled_path("checkpoints", run + SUFFIX).exists():
        return bundled_path("checkpoints", run + SUFFIX)
    for path in (files.best, files.latest):
        if (what := obstacle(path)) not in (None, "missing"):
            raise UsageError(f"{path} is {what}, not a checkpoint: give the name of another run")
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


def _existing(run: str) -> Path:
    """Return the path of a checkpoint that was given as a path.

    Raises:
        UsageError: there is no such file.
    """
    path = expand(run)
    what = obstacle(path)
    if what is None:
        if not run.endswith(SUFFIX) and not _is_archive(path):
            raise UsageError(_text_not_run(run))
        return path
    nearby = [str(p) for p in path.parent.glob("*" + SUFFIX)] if path.parent.is_dir() else []
    hint = did_you_mean(str(path), nearby) or f"give the name of a run or the path of an {SUFFIX} file"
    raise UsageError(
        f"there is no file {run}: {hint}" if what == "missing" else f"{run} is {what}, not a checkpoint: {hint}"
    )


def check_name(name: str) -> None:
    """Validate the name of a run, which becomes a file name.

    Raises:
        UsageError: the name is not valid.
    """
    if name.endswith(SUFFIX):
        raise UsageError(f"{name!r} can't be the name of a run, because {SUFFIX} is added to it: leave it out")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UsageError(
            f"the name {name[:20]!r}… of {len(os.fsencode(name))} bytes is too long: "
            f"choose a `name` of at most {LONGEST_NAME} bytes"
        )
    if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0") or name.endswith(".best"):
        raise UsageError(f"{name!r} can't be the name of a run: choose a `name` of letters, digits, '-' and '_'")
