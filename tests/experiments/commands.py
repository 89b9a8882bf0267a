"""docs/commands.md: the help of every command, as the program prints it at 100 columns.

    python -m tests.experiments.commands [--write]

Prints the page; ``--write`` puts it where it belongs. A test fails when the page is not what this prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from charlstm.cli import ORDER
from charlstm.cli import main as charlstm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
INTRODUCTION = """# Commands

This page shows the output of `charlstm --help` and of `charlstm COMMAND --help` at 100 columns. Brackets contain the
default of an option and its environment variable. An option on the command line overrides its environment variable.

`charlstm --install-completion` sets up Tab completion in bash, zsh or fish for commands, options, runs, texts
and paths. If a word is mistyped, the error message suggests the closest match.

`python -m tests.experiments.commands --write` generates this page.
"""


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for words in ([], *([command] for command in ORDER)):
        parts.append(f"## charlstm {' '.join(words)}".rstrip() + f"\n\n```text\n{help_of(*words)}```\n")
    return "\n".join(parts)


def help_of(*words: str) -> str:
    """What the program prints."""
    told = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "100"}), contextlib.redirect_stdout(told):
        status = charlstm([*words, "--help"])
    assert status == 0, words
    return told.getvalue()


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.commands", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/commands.md")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
