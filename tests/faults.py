"""The calls into the system that a save makes, found by counting: each can be made to fail, or to be the last thing that a process does."""

from __future__ import annotations

import builtins
import io
import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charlstm.storage import atomic

PURE = {"fspath", "getpid", "_exit", "kill", "strerror", "urandom", "getcwd", "cpu_count", "sched_getaffinity"}
"""What is in `os` and touches no file."""
OF_PATHS = {"replace", "rename", "unlink"}
"""Called as methods of a Path, which Python 3.10 does without going through `os`."""


@contextmanager
def before_each_call(act: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, act(name) goes before whatever is called in `os`, before opening, and before each call that a file for writing makes."""

    def told(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **more: Any) -> Any:
            act(name)
            return call(*args, **more)

        return made

    class Raw(io.FileIO):
        """A file without a buffer, so that each call of its methods is one into the system."""

        def write(self, data: Any) -> int:
            act("write")
            return super().write(data)

        def seek(self, *place: int) -> int:
            act("seek")
            return super().seek(*place)

        def truncate(self, size: int | None = None) -> int:
            act("truncate")
            return super().truncate(size)

        def close(self) -> None:
            if not self.closed:
                try:
                    act("close")
                finally:  # a close that fails has closed the file all the same
                    super().close()

    plain_open = builtins.open

    def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        act("open")
        return io.BufferedWriter(Raw(file, "w")) if mode == "wb" else plain_open(file, mode, *args, **more)

    originals = {
        name: call
        for name, call in vars(os).items()
        if isinstance(call, types.BuiltinFunctionType) and call.__module__ == os.name and name not in PURE | OF_PATHS
    }
    methods = {name: getattr(Path, name) for name in OF_PATHS}
    try:
        builtins.open = opened  # type: ignore[assignment]
        for name, call in originals.items():
            setattr(os, name, told(name, call))
        for name, call in methods.items():
            setattr(Path, name, told(name, call))
        yield
    finally:
        builtins.open = plain_open
        for name, call in originals.items():
            setattr(os, name, call)
        for name, call in methods.items():
            setattr(Path, name, call)


@contextmanager
def in_saves(act: Callable[[Path, int, str], None]) -> Iterator[None]:
    """While it lasts, act(path, number, name) goes before each call of each save; the first of a save has the number 1."""
    write = atomic.write_atomically

    def saving(path: Path, *args: Any) -> None:
        number = 0

        def count(name: str) -> None:
            nonlocal number
            number += 1
            act(path, number, name)

        with before_each_call(count):
            write(path, *args)

    try:
        atomic.write_atomically = saving  # type: ignore[assignment]
        yield
    finally:
        atomic.write_atomically = write
