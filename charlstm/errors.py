"""Everything that can go wrong in a way a user can act on, and the exit status of each.

::

    CharlstmError            1   failed: disk, I/O, a damaged file
    ├── CheckpointError      1   a file that can't be read, or is not what it says
    ├── SaveError            1   a checkpoint could not be written
    ├── LockedError          1   a run that another process is training
    ├── UsageError           2   bad input: a text, an option, a name
    │   ├── CorpusError      2   a text that can't be found, read or decoded
    │   └── PromptError      2   a prompt that the model can't read
    └── DivergenceError      3   training diverged and could not be saved from it

A message is one sentence that names the thing, what is wrong with it and what to type instead.
"""

from __future__ import annotations


class CharlstmError(Exception):
    """Base of all errors that are told to the user; `exit_status` is what the process ends with."""

    exit_status = 1


class CheckpointError(CharlstmError):
    """A checkpoint that can't be read, is damaged, or is no checkpoint."""


class SaveError(CharlstmError):
    """A checkpoint that could not be written."""


class LockedError(CharlstmError):
    """A run that another process is training."""


class UsageError(CharlstmError):
    """Something the user gave that the program can't work with."""

    exit_status = 2


class CorpusError(UsageError):
    """A text that can't be found, read, decoded or learned from."""


class PromptError(UsageError):
    """A prompt with characters the model never saw."""


class DivergenceError(CharlstmError):
    """Training diverged and every recovery was spent."""

    exit_status = 3
