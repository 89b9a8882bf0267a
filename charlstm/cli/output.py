"""What the commands write to standard output, for people and for scripts."""

from __future__ import annotations

import os
import sys

from charlstm.display.formatting import inline
from charlstm.errors import CharlstmError


def need_stdout() -> None:
    """Raise CharlstmError if standard output is closed, because the result would be lost."""
    if sys.stdout is None:
        raise CharlstmError("standard output is closed: redirect it to a file, a pipe or a terminal")


def write_path(path: str | os.PathLike[str]) -> None:
    """Write a path to standard output: what a terminal can show, or else the exact bytes, so that scripts can use it."""
    if sys.stdout.isatty():
        sys.stdout.write(inline(os.fspath(path)) + "\n")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.flush()
