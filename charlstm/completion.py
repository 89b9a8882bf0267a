"""What Tab offers for a run and for a text. Called at every press of the key, so it imports no NumPy and reads no file."""

from __future__ import annotations

import re
from pathlib import Path

from charlstm.finding import corpora_names
from charlstm.runs import SUFFIX, run_names

PLAIN = re.compile(r"[\w@%+,./~-]+")
"""What a shell takes as it is."""


def complete_run(begun: str, folder: Path) -> list[str]:
    """Names of the runs in a folder that begin so; where there is none, .npz files by path."""
    names = [name for name in run_names(folder) if name.startswith(begun) and PLAIN.fullmatch(name)]
    return names or _paths(begun, SUFFIX)


def complete_text(begun: str) -> list[str]:
    """Names of the texts in corpora/, and paths, that begin so."""
    names = [name for name in corpora_names() if name.startswith(begun) and PLAIN.fullmatch(name)]
    return names + [path for path in _paths(begun, "") if path not in names]


def _paths(begun: str, ending: str) -> list[str]:
    """Folders, and files of that ending, but for those that would have to be quoted: where nothing else is left, the shell completes by itself, and quotes.

    A folder that is the only match is opened, because the shell would put a space after it.
    """
    head, tail = begun[: begun.rfind("/") + 1], begun[begun.rfind("/") + 1 :]
    found = []
    try:
        for path in Path(head or ".").expanduser().iterdir():
            hidden = path.name.startswith(".") and not tail
            if path.name.startswith(tail) and not hidden and (path.is_dir() or path.name.endswith(ending)):
                found.append(head + path.name + ("/" if path.is_dir() else ""))
    except OSError:
        return []
    if len(found) == 1 and found[0].endswith("/"):
        return _paths(found[0], ending) or found
    return sorted(filter(PLAIN.fullmatch, found))
