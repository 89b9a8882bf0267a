"""Converts plain values of the command line without Pydantic, which takes as long to load as NumPy.

Typer converts every parameter with Pydantic, whether it was given or not. Here a value of the right type, or written in the
ordinary way, is converted directly. Everything else is left to Typer, so that what it accepts and what it says stay its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

INT = re.compile(r"-?[0-9]{1,18}")
FLOAT = re.compile(r"-?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})")
BOOL = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def quicken(params: Iterable[Any]) -> None:
    """Let parameters convert plain values directly; if a version of Typer is built differently, they stay as they are."""
    for param in params:
        if "get_runtime_param" in vars(param):  # by an earlier call in this process
            continue
        build: Any = getattr(param, "get_runtime_param", None)
        descriptor: Any = getattr(param, "type_descriptor", None)
        if build is not None and hasattr(descriptor, "annotation") and hasattr(descriptor, "parameter_info"):
            converter = Converter(descriptor.annotation, descriptor.parameter_info, build)
            param.get_runtime_param = lambda converter=converter: converter


class Converter:
    """Stands in for Typer's own converter of a parameter, which is built only for a value that is not plain."""

    def __init__(self, kind: Any, info: Any, build: Callable[[], Any]) -> None:
        """Use the type of the parameter, what was declared about it, and the function that returns Typer's converter."""
        self.kind, self.info, self.build = kind, info, build

    def coerce(self, value: Any, **context: Any) -> Any:
        """Convert a value."""
        try:
            return plain(self.kind, value, self.info)
        except ValueError:
            return self.build().coerce(value, **context)


def plain(kind: Any, value: Any, info: Any) -> Any:
    """Convert a plain value to a type; None, a value that was not given, is that of an empty list as well.

    Raises:
        ValueError: it is a mistake, or written in an unusual way, or the parameter has limits or a parser.
    """
    if info.parser is not None or info.min is not None or info.max is not None:
        raise ValueError
    if get_origin(kind) is not list:
        return None if value is None else _convert(kind, value, info)
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise ValueError
    return [_convert(get_args(kind)[0], item, info) for item in value]


def _convert(kind: Any, value: Any, info: Any) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        return _path(value, info)
    if kind in (int, float, bool) and type(value) is kind:
        return value
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # a ValueError if the bytes of an argument are not UTF-8
    if kind is str or (get_origin(kind) is Literal and value in get_args(kind)):
        return value
    if kind is bool and value in BOOL:
        return BOOL[value]
    if (kind is int and INT.fullmatch(value)) or (kind is float and FLOAT.fullmatch(value)):
        return kind(value)
    raise ValueError


def _path(value: str | Path, info: Any) -> Path:
    """Convert a path that must at most be readable if it exists."""
    if info.exists or info.writable or info.resolve_path or info.allow_dash or info.path_type is not None:
        raise ValueError
    unreadable = os.access(value, os.F_OK) and not os.access(value, os.R_OK)
    if (info.readable and unreadable) or not (info.file_okay and info.dir_okay):
        raise ValueError
    os.fspath(value).encode()
    return Path(value)
