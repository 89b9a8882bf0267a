"""Writes a file so that a reader, or a power cut, sees the old one or the new one and nothing between."""

from __future__ import annotations

import contextlib
import os
import typing
from pathlib import Path
from typing import BinaryIO

from charlstm.errors import SaveError


def write_atomically(path: Path, write: typing.Callable[[BinaryIO], None], setting: str = "checkpoints") -> None:
    """Write a file atomically: readers see either the old file or the new one, even after a power cut.

    Args:
        path: the file; replaced if it exists.
        write: writes the contents.
        setting: the setting that chooses another location, for the error message.

    Raises:
        SaveError: says why; unless only the sync after the rename failed, the old file is unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(beside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise SaveError(
            f"{path} can't be written: {error.strerror or error}; make room or choose another location with `{setting}`"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut; not possible on Windows."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
