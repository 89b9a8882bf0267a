"""Messages about mistakes on the command line: one sentence each, with the closest valid word as a suggestion."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from charlstm.errors import did_you_mean
from charlstm.settings import Budget, RunOptions, SampleConfig, TextOptions, TrainConfig, TrainRequest

CHOICE = re.compile(r"'(?P<value>.*)' is not one of (?P<choices>.*)", re.DOTALL)


SPELLING = {"temperature": "temp", "save_every_s": "save-every", "preview_every_s": "preview-every"}
"""Options that have another name than their setting."""
NAMES = {f.name for cls in (TrainRequest, TrainConfig, TextOptions, Budget, RunOptions, SampleConfig) for f in fields(cls)} | {
    "bits", "checkpoints", "file", "force", "context", "novelty", "output", "plot", "prompt_file", "temps", "text"
}  # fmt: skip
"""The settings that messages of the library name."""


def spell(message: str, prefix: str = "--") -> str:
    """Spell the settings that a message names in backticks as options: `top_k` becomes --top-k."""

    def option(match: re.Match[str]) -> str:
        name = match[1]
        return f"{prefix}{SPELLING.get(name, name.replace('_', '-'))}" if name in NAMES else match[0]

    return re.sub(r"`(\w+)`", option, message)


def unknown_command(words: Sequence[str], commands: Sequence[str]) -> str:
    """Return the message about a first word that is not a command."""
    hint = did_you_mean(words[0], commands)
    with suppress(OSError, ValueError):  # not a valid file name
        if not hint and Path(words[0]).exists():
            hint = f"did you mean 'charlstm train {shlex.join(words)}'?"
    hint = hint or f"use one of {', '.join(commands)}"
    return f"there is no command {words[0]!r}: {hint}"


def explain(error: Any, words: Sequence[str]) -> str:
    """Return the message about any other mistake, derived from the exception that Typer raised.

    Args:
        error: Typer's exception.
        words: the arguments on the command line.
    """
    context = getattr(error, "ctx", None)
    see = f"see '{context.command_path if context is not None else 'charlstm'} --help'"
    if hasattr(error, "possibilities"):
        return _unknown_option(error, words, see)
    message = str(error.message).removeprefix("Value error, ").replace("Input should be", "it must be").rstrip(".")
    param = getattr(error, "param", None)
    if param is None:
        return f"{message[:1].lower()}{message[1:]}; {see}"
    name = _named(param, context)
    if hasattr(error, "param_type"):
        return f"{name} is missing; {see}"
    if found := CHOICE.fullmatch(message):
        choices = [word.strip("' ") for word in found["choices"].split(",")]
        return f"{name} {found['value']!r} is unknown ({', '.join(choices)}): {did_you_mean(found['value'], choices) or see}"
    return f"{name}: {message.split(',')[0]}; {see}"


def _named(param: Any, context: Any) -> str:
    """Return the name of the parameter as the user gave it: the option, or its environment variable."""
    source = context.get_parameter_source(param.name) if context is not None else None
    if source is not None and source.name == "ENVIRONMENT":
        return str(param.envvar)
    return str(max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or param.name)


def _unknown_option(error: Any, words: Sequence[str], see: str) -> str:
    wrong, context = error.option_name, error.ctx
    for word in words:  # Click reports -temp as -t
        if word.startswith(wrong) and not wrong.startswith("--"):
            wrong = word.split("=")[0]
    root = context.parent or context
    home = dict.fromkeys(_options(context.command), context.command_path)
    for command in root.command.commands.values():
        home = dict.fromkeys(_options(command), f"{root.command_path} {command.name}") | home
    near = difflib.get_close_matches("--" + wrong.lstrip("-"), home, n=1)
    if not near:
        hint = see
    elif home[near[0]] != context.command_path:
        hint = f"'{home[near[0]]}' has {near[0]}"
    else:
        hint = f"did you mean {near[0]}?"
    return f"'{context.command_path}' has no option {wrong}: {hint}"


def _options(command: Any) -> list[str]:
    return [name for param in command.params for name in param.opts if name.startswith("--")]
