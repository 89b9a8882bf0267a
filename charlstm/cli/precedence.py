"""Where the value of an option comes from, and what the command line overrides in the environment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from charlstm.cli.options import unescape
from charlstm.errors import UsageError
from charlstm.settings import TextOptions

ALTERNATIVES = (
    ("minutes", "epochs", "steps"), ("display", "quiet"), ("temp", "temps"), ("length", "max_chars"), ("prompt", "prompt_file"),
)  # fmt: skip
"""Options of which one at most can be used."""
NOT_INTERACTIVE = {
    "prompt": "--prompt", "prompt_file": "--prompt-file", "count": "-n", "json": "--json", "novelty": "--novelty", "output": "--output",
    "temps": "--temps", "separator": "--separator",
}  # fmt: skip
"""Options that can't be combined with -i, and how to name them."""


def given(
    context: Any, names: Sequence[str], sources: Collection[str] = ("COMMANDLINE", "ENVIRONMENT")
) -> dict[str, Any]:
    """Return the values of the options among `names` that the user gave, by default also those from the environment."""
    return {name: context.params[name] for name in names if _source(context, name) in sources}


def override(context: Any) -> None:
    """Reset each option from the environment that can't be combined with one on the command line, **in place**."""
    rivals = [(name, [n for n in group if n != name]) for group in ALTERNATIVES for name in group]
    rivals += [(name, ["interactive"]) for name in NOT_INTERACTIVE]
    defaults = _defaults(context)
    for name, others in rivals:
        typed = any(_source(context, other) == "COMMANDLINE" for other in others)
        if typed and _source(context, name) == "ENVIRONMENT":
            context.params[name] = defaults[name]


def refuse_beside_interactive(context: Any) -> None:
    """Raise UsageError if an option of `NOT_INTERACTIVE` has another value than its default."""
    defaults = _defaults(context)
    if names := [name for name in NOT_INTERACTIVE if context.params[name] != defaults[name]]:
        raise UsageError(f"-i and {NOT_INTERACTIVE[names[0]]} can't be combined: leave one of them out")


def text_options(context: Any) -> TextOptions:
    """Return how to read texts. Escapes in the separator, as in ``--separator '\\n\\n'``, are decoded."""
    read = {f.name: context.params[f.name] for f in fields(TextOptions)}
    if not read["field"] and _source(context, "separator") == "ENVIRONMENT":
        read["separator"] = TextOptions.separator  # the variable is meant for `sample`
    return TextOptions(**read | {"separator": unescape(read["separator"])})


def _defaults(context: Any) -> dict[str, Any]:
    return {param.name: param.get_default(context) for param in context.command.params}


def _source(context: Any, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""
