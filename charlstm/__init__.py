"""A character-level text generator for the command line: a NumPy LSTM that learns any text and writes in its style.

The Python API consists of `load`, `describe`, `train` and `resume`: see `charlstm.api`. They are imported on first use,
because importing NumPy is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charlstm.errors import CharlstmError

if TYPE_CHECKING:
    from charlstm.api import Model, describe, load, resume, train
    from charlstm.training.control import Stop

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
