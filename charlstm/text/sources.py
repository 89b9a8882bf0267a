"""Look up texts by path, pattern or name, and suggest names for mistyped ones; no NumPy, to keep completion fast."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from charlstm import blas
from charlstm.errors import CorpusError, did_you_mean

STDIN = "-"
BUILT_IN = "fables"
BASE = "english"
"""The bundled model that runs on small English texts start from."""
SUFFIX = ".txt"


def bundled_path(folder: str, name: str) -> Path:
    """Return the path of a bundled file, in the installed package or in the source checkout."""
    package = Path(blas.__file__).parent  # the top of the package
    installed = package / "data" / folder / name
    return installed if installed.exists() else package.parent / folder / name


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
    path = Path(name).expanduser()
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
