"""A character-level text generator for the command line: an LSTM in NumPy that learns any text and writes on in its style.

From Python it is `load`, `describe`, `train` and `resume`, see `charlstm.api`; they are imported when they are first asked for, because NumPy takes a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charlstm.errors import CharlstmError

if TYPE_CHECKING:
    from charlstm.api import Model, Stop, describe, load, resume, train

__all__ = ["CharlstmError", "Model", "Stop", "describe", "load", "resume", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'charlstm' has no attribute {name!r}")
    from charlstm import blas

    blas.prepare()
    from charlstm import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
