"""What words mean: texts by path, pattern or name, and the names that come nearest to a mistyped one. Needs no NumPy, so that completion is quick."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from charlstm.errors import CorpusError

STDIN = "-"
BUILT_IN = "fables"
SUFFIX = ".txt"


def nearest(word: str, names: Iterable[str]) -> str:
    """``did you mean NAME?`` for the names that come nearest to a word, or nothing if none is near."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3)
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?" if near else ""


def shipped(folder: str, name: str) -> Path:
    """The path of a file that comes with the program: in an installed package, or in the checkout that it runs from."""
    package = Path(__file__).resolve().parent
    installed = package / "data" / folder / name
    return installed if installed.exists() else package.parent / folder / name


def find(names: Sequence[str]) -> tuple[str, ...]:
    """Absolute paths of the texts that these words mean (``-`` stays as it is); none at all means the built-in text.

    A word is a path, a directory (all its .txt files, sorted), a pattern, ``-``, or the bare name of a text in corpora/.

    Raises:
        CorpusError: says what was looked for, where, and which names come nearest.
    """
    if not names:
        return (str(shipped("corpora", BUILT_IN + SUFFIX)),)
    found = [path for name in names for path in _find_one(name)]
    if found.count(STDIN) > 1 or (STDIN in found and len(found) > 1):
        raise CorpusError("'-' (standard input) can't be combined with other texts: give it alone")
    return tuple(dict.fromkeys(found))


def corpora_folders() -> list[Path]:
    """Where a bare name is looked for: ./corpora, then what comes with the program."""
    return list(dict.fromkeys([Path("corpora").absolute(), shipped("corpora", BUILT_IN + SUFFIX).parent]))


def corpora_names() -> list[str]:
    """The bare names that there are."""
    return sorted({path.stem for folder in corpora_folders() for path in folder.glob("*" + SUFFIX)})


def default_name(sources: Sequence[str]) -> str:
    """The name of a run on these texts: that of the first one. The built-in text's own model is never in the way of it."""
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
                raise CorpusError(f"{name} is a directory with no {SUFFIX} file in it: name the files themselves")
            return texts
        if path.exists():
            return [str(path.absolute())]
    except (OSError, ValueError) as error:
        raise CorpusError(f"{name!r} can't be looked up ({error}): give the path of a text") from error
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
        nearest(str(path), nearby + corpora_names())
        or f"there is {', '.join(corpora_names()) or 'nothing'} in corpora/"
    )
    where = " or ".join(str(folder) for folder in corpora_folders())
    raise CorpusError(f"there is no text {name!r}, neither as a path nor in {where}: {hint}")
