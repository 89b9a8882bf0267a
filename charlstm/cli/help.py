"""The text of ``--help``: the purpose of a command, examples to paste, and its options in groups.

It is plain text generated from Click's parameters. Rich is not imported, because it would make ``--help`` slow.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from charlstm.display.formatting import may_embolden

RUNNING, OTHER = "Running", "Options"
"""The groups that are printed last."""
FIRST = (
    ("charlstm train", "train on the built-in fables; Ctrl-C saves and stops"),
    ("charlstm sample --temp 0.8", "generate new text"),
)
"""The commands to type first, and what they do."""
NARROWEST, WIDEST, MOST_NAME = 40, 100, 26
KINDS = {"int": "N", "float": "X", "str": "TEXT"}
"""Placeholders for the value of an option, by type."""
HELD = "\0"
"""Placeholder for a space at which lines do not break."""


def of_command(path: str, doc: str, parameters: Sequence[Any], context: Any) -> str:
    """Format the help of one command.

    Args:
        path: the command as typed, such as ``charlstm train``.
        doc: its docstring: a paragraph on its purpose, then one example per line: a command, two spaces, ``#``, a comment.
        parameters: its arguments and options, as Click's objects.
        context: Click's context.
    """
    about, *rest = inspect.cleandoc(doc).split("\n\n")
    arguments = [p for p in parameters if p.param_type_name == "argument"]
    options = [p for p in parameters if p.param_type_name == "option" and not p.hidden]
    groups: dict[str, list[Any]] = {}
    for option in options:
        groups.setdefault(option.rich_help_panel or OTHER, []).append(option)
    blocks = [
        _fill(about),
        _heading("Usage") + " " + " ".join([path, "[OPTIONS]", *map(_usage, arguments)]),
        _table("Examples", [_example(line) for block in rest for line in block.splitlines()], whole=True),
        _table("Arguments", [(_usage(p).strip("[]."), p.help or "") for p in arguments]),
    ]
    for name in sorted(groups, key=lambda name: (name == OTHER, name == RUNNING)):
        blocks.append(_table(name, [(_names(p, context), _meaning(p)) for p in groups[name]]))
    return "\n\n".join(block for block in blocks if block)


def of_program(
    path: str, doc: str, commands: Iterable[tuple[str, str]], parameters: Sequence[Any], context: Any
) -> str:
    """Format the help of the program: what to type first, its commands and its own options."""
    return "\n\n".join(
        [
            _fill(inspect.cleandoc(doc)),
            f"{_heading('Usage')} {path} COMMAND [OPTIONS]",
            _table("Getting started", FIRST, whole=True),
            _table("Commands", [(name, inspect.cleandoc(about).split("\n\n")[0]) for name, about in commands]),
            _table(OTHER, [(_names(p, context), p.help or "") for p in parameters if not p.hidden]),
            _fill(f"Run '{path} COMMAND --help' for examples and every option with its environment variable."),
        ]
    )


def _example(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in line.split("  # ", 1))


def width() -> int:
    """Return the number of columns to use."""
    return max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return (name if argument.required else f"[{name}]") + ("..." if argument.nargs == -1 else "")


def _names(option: Any, context: Any) -> str:
    """Format the names and value of an option, as in ``-n, --count N``."""
    names = ", ".join(sorted(option.opts + option.secondary_opts, key=len))
    if option.is_flag:
        return names
    kind = option.metavar or option.display_type(context).strip("<>")
    return f"{names} {KINDS.get(kind, kind if '|' in kind else kind.upper())}"


def _meaning(option: Any) -> str:
    """Format the description of an option, with its default and environment variable."""
    facts = []
    if option.show_default and option.default is not None and not option.is_flag and option.default != "":
        default = option.default
        facts.append(f"default:{HELD}{default:g}" if isinstance(default, float) else f"default:{HELD}{default}")
    if option.envvar:
        facts.append(str(option.envvar))
    return f"{option.help or ''} [{'; '.join(facts)}]" if facts else str(option.help or "")


def _fill(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), width())


def _table(title: str, rows: Sequence[tuple[str, ...]], *, whole: bool = False) -> str:
    """Format names and descriptions in two columns; a name too long for its column gets a line of its own.

    With `whole`, names are commands to paste and are never broken.
    """
    if not rows:
        return ""
    longest = max(len(name) for name, *_ in rows)
    column = longest if whole and longest + 30 <= width() else min(longest, MOST_NAME)
    lines = [_heading(title)]
    for name, *more in rows:
        meaning = " ".join(" ".join(more).split())
        indent = column + 4 if len(name) <= column or not whole else 6
        wrapped = textwrap.wrap(meaning, width() - indent, break_long_words=False, break_on_hyphens=False)
        if len(name) <= column and wrapped:
            lines.append(f"  {_bold(name)}{' ' * (column - len(name))}  {wrapped.pop(0)}")
        else:
            lines.append(f"  {_bold(name)}")
        lines += [" " * indent + line for line in wrapped]
    return "\n".join(lines).replace(HELD, " ")


def _heading(title: str) -> str:
    return _styled(title + ":", "1;4")


def _bold(text: str) -> str:
    return _styled(text, "1")


def _styled(text: str, code: str) -> str:
    """Style text for a terminal that supports it; otherwise return it unchanged."""
    return f"\x1b[{code}m{text}\x1b[0m" if may_embolden(sys.stdout) else text
