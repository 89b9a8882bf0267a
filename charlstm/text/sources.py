"""Look up texts by path, pattern or name, and suggest names for mistyped ones; no NumPy, to keep completion fast."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from charlstm import blas
from charlstm.errors import CorpusError, did_you_mean

STDIN = "-"
BUILT_IN = "fables"
BASE = "english"
"""The bundled model that runs on small English texts start from."""
SUFFIX = ".txt"
MOST_SHOWN = 5
"""How many texts of a run are named in a line."""


def bundled_path(folder: str, name: str) -> Path:
    """Return the path of a bundled file, in the installed package or in the source checkout."""
    package = Path(blas.__file__).parent  # the top of the package
    installed = package / "data" / folder / name
    return installed if installed.exists() else package.parent / folder / name


def expand(path: str | Path) -> Path:
    """Return a path with its leading ``~`` or ``~user`` replaced by that home folder, if there is one, as a shell does."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


def stored(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of the texts that a run recorded: each is the path of a file, and never a pattern or a directory.

    Raises:
        CorpusError: one of them is missing, or is not a regular file.
    """
    found = []
    for source in sources:
        path = bundled_path("corpora", BUILT_IN + SUFFIX) if source == BUILT_IN else Path(source)
        try:
            is_file = path.is_file()
        except (OSError, ValueError):
            is_file = False
        if not is_file:
            raise CorpusError(f"the text {source[:200]} is missing, or is not a file: restore it")
        found.append(str(path))
    return tuple(found)


def summary(sources: Sequence[str], shown: Callable[[str], str]) -> str:
    """List some texts in one line: the first few as `shown` returns them, and how many more there are."""
    first, more = [shown(source) for source in sources[:MOST_SHOWN]], len(sources) - MOST_SHOWN
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


def find(names: Sequence[str]) -> tuple[str, ...]:
    """Return the absolute paths of the texts with these names; without names, that of the built-in text.

    A name is a path, a directory (all its .txt files, sorted), a glob pattern, the name of a text in corpora/, or ``-`` for
    standard input, which is returned unchanged.

    Raises:
        CorpusError: no text matches a name; the message suggests the closest ones.
    """
    if not names:
        return (str(bundled_path("corpora", BUILT_IN + SUFFIX)),)
    found = [path for name in names for path in _find_one(name)]
    if found.count(STDIN) > 1 or (STDIN in found and len(found) > 1):
        raise CorpusError("'-' (standard input) can't be combined with other texts: give only '-'")
    return tuple(dict.fromkeys(found))


def corpora_folders() -> list[Path]:
    """Return the folders to search for a bare name: ./corpora, then the bundled corpora."""
    return list(dict.fromkeys([Path("corpora").absolute(), bundled_path("corpora", BUILT_IN + SUFFIX).parent]))


def corpora_names() -> list[str]:
    """Return the bare names of all texts in the corpora folders."""
    return sorted({path.stem for folder in corpora_folders() for path in folder.glob("*" + SUFFIX)})


def default_name(sources: Sequence[str]) -> str:
    """Return the default name of a run on these texts: the name of the first one.

    The built-in text gets the prefix "my-", so that the run does not hide the bundled model.
    """
    if list(sources) == [STDIN]:
        return "stdin"
    stem = Path(sources[0]).stem
    return f"my-{stem}" if stem == BUILT_IN else stem


def _find_one(name: str) -> list[str]:
    if name == STDIN:
        return [STDIN]
    path = expand(name)
    try:
        if path.is_dir():
            texts = sorted(str(p.absolute()) for p in path.rglob("*" + SUFFIX) if p.is_file())
            if not texts:
                raise CorpusError(f"the directory {name} contains no {SUFFIX} files: give the files by name")
            return texts
        if path.exists():
            return [str(path.absolute())]
    except (OSError, ValueError) as error:
        raise CorpusError(f"the text {name!r} can't be accessed ({error}): give the path of another") from error
    if any(c in name for c in "*?["):
        texts = sorted(str(Path(p).absolute()) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if texts:
            return texts
        raise CorpusError(f"no file matches the pattern {name!r}: check it with 'ls'")
    for folder in corpora_folders():
        for candidate in (folder / name, folder / (name + SUFFIX)):
            if candidate.is_file():
                return [str(candidate)]
    nearby = [str(p) for p in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = (
        did_you_mean(str(path), nearby + corpora_names())
        or f"give a path, or the name of a text in corpora/ ({', '.join(corpora_names())})"
    )
    where = " or ".join(str(folder) for folder in corpora_folders())
    raise CorpusError(f"there is no text {name!r}, either as a path or in {where}: {hint}")
