"""The command line interface: parse arguments, call the API, render the result, exit.

NumPy and everything that depends on it are imported only once a command is about to run, which keeps ``--help`` fast.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from charlstm import __version__, blas
from charlstm.cli import hints, signals
from charlstm.cli.conversion import quicken
from charlstm.cli.evaluate import evaluate
from charlstm.cli.export import export
from charlstm.cli.options import (
    JSON,
    SAMPLE_DEFAULTS,
    Cache,
    Checkpoints,
    Count,
    Interactive,
    Length,
    Lines,
    MaxChars,
    MinP,
    NoCopy,
    Novelty,
    Output,
    Prompt,
    PromptFile,
    Quiet,
    Run,
    SampleSeed,
    Stop,
    Temperature,
    Temps,
    TextSeparator,
    TopK,
    TopP,
    UnknownOption,
    expanded,
    option,
    parse_temps,
    unescape,
)
from charlstm.cli.output import need_stdout
from charlstm.cli.precedence import given, override, refuse_beside_interactive
from charlstm.cli.runs import runs
from charlstm.cli.train import on_ranks, resume, train
from charlstm.display.formatting import inline
from charlstm.errors import SIGNALS, CharlstmError, UsageError
from charlstm.settings import AUTO, CONVERSATION_LENGTH, RUNS, SampleConfig

ORDER = ("train", "sample", "resume", "info", "eval", "export", "runs")
"""The order in which ``--help`` lists the commands."""


class _Command(TyperCommand):
    """A command whose help is formatted by `help`, and which converts plain values itself."""

    def get_help(self, ctx: Any) -> str:
        from charlstm.cli import help as helptext

        return helptext.of_command(ctx.command_path, self.help or "", self.get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing and (message := hints.single_dash(args, self, ctx)):
            raise UsageError(message)
        quicken(self.get_params(ctx))
        left = super().parse_args(ctx, args)
        override(ctx)
        return left


class _Program(TyperGroup):
    """The group of all commands, listed in `ORDER`, with help formatted by `help`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def get_help(self, ctx: Any) -> str:
        from charlstm.cli import help as helptext

        commands = [(name, self.commands[name].help or "") for name in self.list_commands(ctx)]
        return helptext.of_program(ctx.command_path, self.help or "", commands, self.get_params(ctx), ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        quicken(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] == "help" and not ctx.resilient_parsing:  # as git and cargo have it
            if len(args) == 1:
                print(ctx.get_help())
                raise typer.Exit
            args = [args[1], "--help"]
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(hints.unknown_command(args, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="charlstm",
    cls=_Program,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cache
def _build() -> Any:
    """Build the commands from their functions, once per process."""
    return typer.main.get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit status; every error becomes one sentence on stderr."""
    _reopen_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may have characters that stdout can't encode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = _build()(argv, standalone_mode=False, prog_name="charlstm")
        return result if isinstance(result, int) else 0
    except CharlstmError as error:
        return _fail(hints.spell(str(error)), error.exit_status)
    except typer.TyperException as error:
        return _fail(hints.explain(error, sys.argv[1:] if argv is None else argv), error.exit_code)
    except SystemExit as leaving:  # Typer exits this way when a pipe is closed
        return 0 if isinstance(leaving.__context__, BrokenPipeError) else int(leaving.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return SIGNALS["SIGINT"]
    except MemoryError:
        return _fail("out of memory: end other programs, raise the limit, or ask for less", 1)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        return _fail("no thread can be started: raise the limit (see 'ulimit -u'), or set --threads 1", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)


def _reopen_closed_streams() -> None:
    """Open os.devnull for closed standard streams, so that no file gets descriptor 0, 1 or 2 and with it stray output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _fail(sentence: str, status: int) -> int:
    with suppress(OSError, ValueError):  # without a usable stderr, the exit status still reports it
        print(inline(f"charlstm: {' '.join(sentence.split())}"), file=sys.stderr, flush=True)
    return status


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[
        bool, typer.Option("-V", "--version", help="Show the version and exit.", show_default=False)
    ] = False,
) -> None:
    """Train a character-level LSTM on any text, and generate new text in its style.

    Training shows its progress, saves checkpoints as it runs, and can be stopped at any time.
    """
    if show:
        print(f"charlstm {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:  # stdout is reserved for the output of a command
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


app.command(cls=_Command)(train)
app.command(cls=_Command)(resume)
app.command("eval", cls=_Command)(evaluate)
app.command(cls=_Command)(runs)
app.command(cls=_Command)(export)


@app.command(cls=_Command)
def sample(
    context: typer.Context,
    run: Run = None,
    temp: Temperature = SAMPLE_DEFAULTS.temperature,
    top_k: TopK = SAMPLE_DEFAULTS.top_k,
    top_p: TopP = SAMPLE_DEFAULTS.top_p,
    min_p: MinP = SAMPLE_DEFAULTS.min_p,
    temps: Temps = "",
    seed: SampleSeed = None,
    length: Length = None,
    lines: Lines = SAMPLE_DEFAULTS.lines,
    max_chars: MaxChars = SAMPLE_DEFAULTS.max_chars,
    no_copy: NoCopy = SAMPLE_DEFAULTS.no_copy,
    stop: Stop = SAMPLE_DEFAULTS.stop,
    prompt: Prompt = SAMPLE_DEFAULTS.prompt,
    prompt_file: PromptFile = None,
    unknown: UnknownOption = SAMPLE_DEFAULTS.unknown,
    count: Count = 1,
    separator: TextSeparator = None,
    novelty: Novelty = False,
    cache: Cache = AUTO,
    interactive: Interactive = False,
    json: JSON = False,
    output: Output = None,
    quiet: Quiet = False,
    checkpoints: Checkpoints = RUNS,
) -> int:
    """Generate new text from a run.

    charlstm sample --temp 0.8                                   # sample the newest run
    charlstm sample trumptweets --prompt "I will " --lines 1     # continue a prompt
    charlstm sample --lines 5 --output today.txt                 # write a file, never a partial one
    charlstm sample --lines 5 --max-chars 280 --no-copy 30       # write posts: short, whole and new
    """
    if length and max_chars:
        raise UsageError("--length and --max-chars can't be combined: leave one of them out")
    if temps and {"temp", "temps"} <= given(context, ("temp", "temps"), ("COMMANDLINE",)).keys():
        raise UsageError("--temp and --temps can't be combined: leave one of them out")
    if length is None:
        length = 0 if lines > 0 else CONVERSATION_LENGTH if interactive else SAMPLE_DEFAULTS.length
    if interactive:
        refuse_beside_interactive(context)
    settings = SampleConfig(
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        length=length,
        stop=unescape(stop),
        lines=lines,
        unknown=unknown,
        prompt=prompt,
        min_p=min_p,
        max_chars=max_chars,
        no_copy=no_copy,
    )

    def program() -> int:
        file = None if output == Path("-") else output
        if file is None:
            need_stdout()
        elif file.is_dir():  # "" is the current directory
            raise UsageError(f"--output {file} is a directory: give the name of a file")
        blas.prepare()
        with signals.leaving_on_signals():
            if interactive:
                from charlstm.cli.interactive import converse

                return converse(run, checkpoints, cache, settings, seed, quiet=quiet)
            from charlstm.cli.sample import write_samples

            return write_samples(
                run, checkpoints, settings, count, seed, temps=parse_temps(temps), prompt_file=prompt_file,
                separator=None if separator is None else unescape(separator), novelty=novelty, cache=cache, as_json=json, output=file, quiet=quiet,
            )  # fmt: skip

    return on_ranks(program, trains=False, shared=count > 1)


@app.command(cls=_Command)
def info(
    run: Run = None,
    json: JSON = False,
    plot: Annotated[
        Path | None,
        option(
            "--plot",
            "Draw the curves in this .png or .svg file (needs matplotlib).",
            show_default=False,
            callback=expanded,
            readable=False,
        ),
    ] = None,
    checkpoints: Checkpoints = RUNS,
) -> int:
    """Show a run: model, text, settings, curves, health, size. Without RUN, show the newest one and list all runs.

    charlstm info                        # show the newest run and list all
    charlstm info trumptweets --json     # print JSON, for programs
    charlstm info trumptweets --plot curves.svg
    """
    need_stdout()
    blas.prepare()
    from charlstm.cli.info import write_info

    return write_info(run, checkpoints, as_json=json, plot=plot)
