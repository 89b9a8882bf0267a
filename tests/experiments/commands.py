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

from charlstm.cli.app import ORDER
from charlstm.cli.app import main as charlstm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
INTRODUCTION = """# Commands

This page shows what `charlstm --help` and `charlstm COMMAND --help` print at 100 columns. Brackets contain the default
of an option and the environment variable that sets it. An option on the command line overrides the variable.

`charlstm --install-completion` teaches your shell (bash, zsh, fish) to complete commands, options, paths, and the names
of runs and texts. If you mistype a word, charlstm suggests the one that you probably meant.

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
