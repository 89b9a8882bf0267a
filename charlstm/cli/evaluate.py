"""The command `eval`."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from charlstm import blas
from charlstm.cli import signals
from charlstm.cli.options import (
    JSON,
    Cache,
    Checkpoints,
    Encoding,
    Field,
    Separator,
    Unescape,
    UnknownOption,
    complete_run,
    complete_text,
    option,
)
from charlstm.cli.output import need_stdout
from charlstm.cli.precedence import given, text_options
from charlstm.cli.train import on_ranks
from charlstm.errors import UsageError
from charlstm.nn.config import Range
from charlstm.settings import AUTO, RUNS, TextOptions, require


def evaluate(
    ctx: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name or file of a run.", show_default=False, autocompletion=complete_run),
    ],
    corpora: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT",
            help="Texts, as for 'train' (default: what the run held out).",
            show_default=False,
            autocompletion=complete_text,
        ),
    ] = None,
    context: Annotated[
        int, option("--context", "Reset the state every N characters, as models with a fixed context do (0: never).")
    ] = 0,
    adapt: Annotated[
        bool,
        option(
            "--adapt",
            "Learn from each part of the text after predicting it (dynamic evaluation); the run is not changed.",
            show_default=False,
        ),
    ] = False,
    limit: Annotated[int, option("--limit", "Evaluate only the first N characters (0: all).")] = 0,
    show: Annotated[
        bool,
        option(
            "--show",
            "Print the text, with each character coloured by how unexpected it is; marks below it without colours, values with --json.",
            show_default=False,
        ),
    ] = False,
    json: JSON = False,
    unknown: UnknownOption = "error",
    encoding: Encoding = "utf-8",
    field: Field = "",
    separator: Separator = "\n",
    unescape: Unescape = False,
    cache: Cache = AUTO,
    checkpoints: Checkpoints = RUNS,
) -> int:
    """Measure how well a run predicts a text, in nats and bits per character.

    charlstm eval trumptweets                            # print the loss on what the run held out
    charlstm eval trumptweets newtweets.txt              # print the loss on another text
    charlstm eval trumptweets newtweets.txt --show       # print the text in colours
    """
    require("context", context, Range(0))
    if not corpora and (reading := given(ctx, [f.name for f in fields(TextOptions)], ("COMMANDLINE",))):
        raise UsageError(
            f"`{min(reading)}` is for reading a TEXT: give one, or leave it out, because the run knows its own"
        )

    def program() -> int:
        need_stdout()
        blas.prepare()
        from charlstm.cli.scores import write_eval

        with signals.leaving_on_signals():
            return write_eval(
                run, checkpoints, corpora or (), text_options(ctx), context, unknown,
                adapt=adapt, limit=limit, cache=cache, show=show, as_json=json,
            )  # fmt: skip

    return on_ranks(program, trains=False)
