"""Look up texts by path, pattern or name, and suggest names for mistyped ones; no NumPy, to keep completion fast."""

from __future__ import annotations

import collections
import glob
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from charlstm import blas
from charlstm.errors import CorpusError, did_you_mean

STDIN = "-"
BUILT_IN = "fables"
BASE = "english"
"""The bundled model that runs on English texts start from."""
SUFFIX = ".txt"
RECORDS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".js": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Suffixes of files that contain records, and the format of each."""
TEXT_SUFFIXES = (SUFFIX, ".md", ".markdown", ".rst", ".text", ".log")
PACKED = (".gz", ".zip")
"""Suffixes of files that are decompressed."""
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


def summary(sources: Sequence[str], shown: Callable[[str], str]) -> str:
    """List some texts in one line: the first few as `shown` returns them, and how many more there are."""
    first, more = [shown(source) for source in sources[:MOST_SHOWN]], len(sources) - MOST_SHOWN
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


def find(names: Sequence[str], notes: list[str] | None = None) -> tuple[str, ...]:
    """Return the absolute paths of the texts with these names; without names, that of the built-in text.

    A name is a path, a directory (all its .txt files, sorted), a glob pattern, the name of a text in corpora/, or ``-`` for
    standard input, which is returned unchanged. A file that is named twice is read once.

    Args:
        names: what the user typed.
        notes: receives a note if a file is named twice.

    Raises:
        CorpusError: no text matches a name; the message suggests the closest ones.
    """
    if not names:
        return (str(bundled_path("corpora", BUILT_IN + SUFFIX)),)
    paths = [path for name in names for path in _find_one(name)]
    if paths.count(STDIN) > 1 or (STDIN in paths and len(paths) > 1):
        raise CorpusError("'-' (standard input) can't be combined with other texts: give only '-'")
    repeated = [path for path, count in collections.Counter(paths).items() if count > 1]
    if repeated and notes is not None:
        more = f" (and {len(repeated) - 1:,} more)" if len(repeated) > 1 else ""
        notes.append(f"{repeated[0]}{more} is named twice but read once")
    return tuple(dict.fromkeys(paths))


def find_again(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of the texts that a run has recorded: regular files, ``-``, or the built-in text, but no patterns.

    Raises:
        CorpusError: a file is missing.
    """
    built_in = bundled_path("corpora", BUILT_IN + SUFFIX)
    paths = [source if source == STDIN else str(built_in) if source == BUILT_IN else source for source in sources]
    for path in paths:
        if path != STDIN and not _is_file(path):
            raise CorpusError(f"the text {path[:200]} is missing, or is not a file")
    return tuple(paths)


def corpora_folders() -> list[Path]:
    """Return the folders to search for a bare name: ./corpora, then the bundled corpora."""
    return list(dict.fromkeys([Path("corpora").absolute(), bundled_path("corpora", BUILT_IN + SUFFIX).parent]))


def corpora_names() -> list[str]:
    """Return the bare names of all texts in the corpora folders."""
    return sorted({path.stem for folder in corpora_folders() for path in folder.glob("*" + SUFFIX)})


def default_name(sources: Sequence[str]) -> str:
    """Return the default name of a run on these texts: the name of the first one, without suffixes.

    The built-in text gets the prefix "my-", so that the run does not hide the bundled model.
    """
    if list(sources) == [STDIN]:
        return "stdin"
    name = Path(sources[0])
    if name.suffix.lower() in PACKED and Path(name.stem).suffix.lower() in (*TEXT_SUFFIXES, *RECORDS):
        name = Path(name.stem)
    return f"my-{name.stem}" if name.stem == BUILT_IN else name.stem


def kind_of(name: str) -> str:
    """Return the format of a file of records, judged by its suffix: csv, tsv, json or jsonl; "" for other texts."""
    return RECORDS.get(Path(without_gz(name)).suffix.lower(), "")


def without_gz(name: str) -> str:
    """Return the name of a file without the suffix of a compressed one."""
    return name[:-3] if name.lower().endswith(".gz") else name


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _find_one(name: str) -> list[str]:
    if name == STDIN:
        return [STDIN]
    path = expand(name)
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return _in_folder(name, path)
        if path.name.endswith(".npz"):
            run = path.name.removesuffix(".npz").removesuffix(".best")
            raise CorpusError(
                f"{name} is a run, not a text: continue it with 'charlstm resume {shlex.quote(run)}', "
                f"or give a text and `init_from` {shlex.quote(run)}"
            )
        if path.exists():
            return [str(path.absolute())]
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: there is no such user
        raise CorpusError(f"the text {name!r} can't be accessed ({error}): give the path of another") from error
    if re.match(r"\w+://", name):
        file = name.rstrip("/").rpartition("/")[2] or "text.txt"
        raise CorpusError(
            f"{name} is an address, and charlstm does not download: "
            f"type 'curl -Lo {shlex.quote(file)} {shlex.quote(name)}', and train on that file"
        )
    if any(c in name for c in "*?["):
        texts = sorted(str(Path(p).absolute()) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if texts:
            return texts
        raise CorpusError(f"no file matches the pattern {name!r}: check it with 'ls'")
    for folder in corpora_folders():
        for candidate in (folder / name, folder / (name + SUFFIX)):
            if candidate.is_file():
                return [str(candidate)]
    raise _missing(name, path)


def _in_folder(name: str, folder: Path) -> list[str]:
    """Return the .txt files of a folder and its subfolders; raise CorpusError if there are none."""
    texts = sorted(str(p.absolute()) for p in folder.rglob("*" + SUFFIX) if p.is_file())
    if texts:
        return texts
    others = collections.Counter(p.suffix for p in folder.rglob("*") if p.suffix.lower() in (*TEXT_SUFFIXES, *RECORDS))
    if not others:
        raise CorpusError(f"the directory {name} contains no {SUFFIX} files: give the files by name")
    (suffix, count), *_ = others.most_common(1)
    pattern = shlex.quote(f"{name.rstrip('/')}/**/*{suffix}")
    raise CorpusError(
        f"the directory {name} contains no {SUFFIX} files but {count:,} {suffix} {'file' if count == 1 else 'files'}: "
        f"type {pattern if pattern.startswith(chr(39)) else repr(pattern)} with the quotes"
    )


def _missing(name: str, path: Path) -> CorpusError:
    """Return the error for a text that does not exist, with the closest names."""
    nearby = [str(p) for p in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = (
        did_you_mean(str(path), nearby + corpora_names())
        or f"give a path, or the name of a text in corpora/ ({', '.join(corpora_names())})"
    )
    return CorpusError(f"there is no text {name!r}, neither a file of that name nor a text in corpora/: {hint}")
