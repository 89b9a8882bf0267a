"""All errors that a user can act on, with the exit status of each.

::

    CharlstmError            1   failure: disk, I/O, a damaged file
    ├── CheckpointError      1   a checkpoint can't be read or is damaged
    ├── SaveError            1   a file can't be written
    ├── LockedError          1   another process is training the run
    ├── UsageError           2   bad input: a text, an option, a name
    │   ├── CorpusError      2   a text can't be found, read or decoded
    │   └── PromptError      2   a prompt can't be read, or has unknown characters
    └── DivergenceError      3   training diverged and no recovery is left

A message is one sentence: what is wrong, where, and what to type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143}
"""The exit status of each signal that ends the program; training is saved before."""


class CharlstmError(Exception):
    """Base of all errors for the user; `exit_status` is the exit status of the process."""

    exit_status = 1


class CheckpointError(CharlstmError):
    """A file can't be read, is damaged, or is not a checkpoint."""


class SaveError(CharlstmError):
    """A file can't be written."""


class LockedError(CharlstmError):
    """Another process is training the run."""


class UsageError(CharlstmError):
    """The input is invalid: a text, an option or a name."""

    exit_status = 2


class CorpusError(UsageError):
    """A text can't be found, read, decoded or trained on."""


class PromptError(UsageError):
    """A prompt can't be read, or has characters that the model never saw."""


class DivergenceError(CharlstmError):
    """Training diverged and no recovery is left."""

    exit_status = 3


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return "did you mean NAME?" for the names closest to a word, or an empty string if none is close."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), by_lower, n=3)
    return f"did you mean {' or '.join(by_lower[name] for name in near)}?" if near else ""
