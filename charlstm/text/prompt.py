"""Reads a prompt from a file or from standard input."""

from __future__ import annotations

from pathlib import Path

from charlstm.errors import PromptError
from charlstm.text.files import open_source
from charlstm.text.sources import STDIN


def read_prompt(source: str | Path) -> str:
    """Read a prompt from a UTF-8 file, or from standard input for ``-``.

    Line endings become LF, and a final line ending is dropped.

    Raises:
        PromptError: the file can't be read, or is not UTF-8.
    """
    name = "standard input" if source == STDIN else str(source)
    try:
        with open_source(str(source)) as file:
            data = file.read()
    except OSError as error:
        raise PromptError(f"the prompt {name} can't be read ({error.strerror or error}): give another file") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"{name}, line {line}, offset {error.start}: byte 0x{data[error.start]:02X} is not UTF-8: "
            f"save the prompt as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
