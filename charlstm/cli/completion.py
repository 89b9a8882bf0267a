"""Shell completion for runs and texts. It runs at every press of Tab, so it neither imports NumPy nor reads files."""

from __future__ import annotations

import re
from pathlib import Path

from charlstm.storage.runs import SUFFIX, run_names
from charlstm.text.sources import corpora_names, expand

PLAIN = re.compile(r"[\w@%+,./~-]+")
"""Names that need no quoting in a shell."""


def complete_run(incomplete: str, folder: Path) -> list[str]:
    """Return the runs in `folder` whose names start with `incomplete`, or matching paths of .npz files if there are none."""
    names = [name for name in run_names(folder) if name.startswith(incomplete) and PLAIN.fullmatch(name)]
    return names or _paths(incomplete, SUFFIX)


def complete_text(incomplete: str) -> list[str]:
    """Return the names of texts in corpora/, and the paths, that start with `incomplete`."""
    names = [name for name in corpora_names() if name.startswith(incomplete) and PLAIN.fullmatch(name)]
    return names + [path for path in _paths(incomplete, "") if path not in names]


def _paths(incomplete: str, ending: str) -> list[str]:
    """Return folders, and files with this ending, whose paths start with `incomplete`.

    Paths that need quoting are omitted. If nothing remains, the shell falls back to its own completion, which quotes.
    If a folder is the only match, its contents are returned, because the shell would append a space to a lone folder.
    """
    head, tail = incomplete[: incomplete.rfind("/") + 1], incomplete[incomplete.rfind("/") + 1 :]
    paths = []
    try:
        for path in expand(head or ".").iterdir():
            hidden = path.name.startswith(".") and not tail
            if path.name.startswith(tail) and not hidden and (path.is_dir() or path.name.endswith(ending)):
                paths.append(head + path.name + ("/" if path.is_dir() else ""))
    except OSError:
        return []
    if len(paths) == 1 and paths[0].endswith("/"):
        return _paths(paths[0], ending) or paths
    return sorted(filter(PLAIN.fullmatch, paths))
