"""The command line: parse, call, render, exit. NumPy and all that needs it are imported once a command is known to run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from charlstm import __version__, blas, completion, driving, helptext, hints
from charlstm.clock import Stop
from charlstm.errors import CharlstmError, UsageError
from charlstm.settings import (
    CONVERSATION_LENGTH,
    Budget,
    DisplayKind,
    Habits,
    IfExists,
    Optimizer,
    SampleConfig,
    TrainConfig,
    Unknown,
    require,
)

if TYPE_CHECKING:
    from charlstm.events import Event

ORDER = ("train", "sample", "resume", "info", "eval")
"""Of the commands in the help: that of use."""
DEFAULTS, SAMPLE_DEFAULTS, HABITS = TrainConfig(), SampleConfig(), Habits()


class _Command(TyperCommand):
    """A command with our own help."""

    def get_help(self, ctx: Any) -> str:
        return helptext.of_command(ctx.command_path, self.help or "", self.get_params(ctx), ctx)


class _Program(TyperGroup):
    """All commands, in the order of use."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def get_help(self, ctx: Any) -> str:
        commands = [(name, self.commands[name].help or "") for name in self.list_commands(ctx)]
        return helptext.of_program(ctx.command_path, self.help or "", commands, self.get_params(ctx), ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(hints.unknown_command(args, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="charlstm",
    cls=_Program,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit status; every error becomes one sentence on stderr."""
    _stand_in_for_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold what a terminal, or UTF-8 itself, has no bytes for
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = app(argv, standalone_mode=False, prog_name="charlstm")
        return result if isinstance(result, int) else 0
    except CharlstmError as error:
        return _complain(str(error), error.exit_status)
    except typer.TyperException as error:
        return _complain(hints.explain(error, sys.argv[1:] if argv is None else argv), error.exit_code)
    except SystemExit as leaving:  # Typer's answer to a closed pipe
        return 0 if isinstance(leaving.__context__, BrokenPipeError) else int(leaving.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return driving.SIGNALS["SIGINT"]
    except OSError as error:
        return _complain(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)


def _stand_in_for_closed() -> None:
    """Take the numbers of standard streams that came closed, so that no file gets one and is written into; nobody hears errors then."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _complain(sentence: str, status: int) -> int:
    with suppress(OSError, ValueError):  # where nobody can be told, the status still tells
        print(f"charlstm: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    return status


def _complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    return completion.complete_run(incomplete, Path(ctx.params.get("checkpoints") or "checkpoints"))


def _complete_text(incomplete: str) -> list[str]:
    return completion.complete_text(incomplete)


def _option(name: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """An option with its environment variable."""
    flags = name.split()
    env = "CHARLSTM_" + flags[-1].strip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=env, rich_help_panel=panel, **more)


LENGTH, MODEL, LEARNING, RUNNING = "How long", "The model", "Learning", "Running"
OPEN = " Chosen to suit text and budget if not given."
CHOICE, ENDING = "Choosing characters", "Beginning and end"

CorpusNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS",
        autocompletion=_complete_text,
        help="Texts: paths, a directory, a pattern, '-' for standard input, or the name of a text in corpora/. None: the built-in text.",
        show_default=False,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run's name or file; the newest run if none is given.",
        show_default=False,
        autocompletion=_complete_run,
    ),
]
Checkpoints = Annotated[Path, _option("--checkpoints", "The folder of runs.", RUNNING)]
Minutes = Annotated[
    float | None, _option("--minutes", "Train for so many minutes from now.", LENGTH, show_default=False)
]
Epochs = Annotated[
    float | None, _option("--epochs", "Train until the text was read so often.", LENGTH, show_default=False)
]
Steps = Annotated[int | None, _option("--steps", "Train until so many steps were taken.", LENGTH, show_default=False)]
Display = Annotated[
    DisplayKind,
    _option(
        "--display",
        "What to show: a screen, a bar, lines, JSON on stdout, nothing. auto: live on a terminal, else lines.",
        RUNNING,
    ),
]
SaveEvery = Annotated[float, _option("--save-every", "Seconds between checkpoints.", RUNNING)]
PreviewEvery = Annotated[float, _option("--preview-every", "Seconds between samples while training; 0: none.", RUNNING)]
Threads = Annotated[int, _option("--threads", "Threads to use; 0: all cores.", RUNNING)]
JSON = Annotated[bool, _option("--json", "JSON instead of text.", show_default=False)]


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.", show_default=False)] = False,
) -> None:
    """Learn any text, and write new text in its style: a character-level LSTM in NumPy.

    Training shows what it learns, saves as it goes, and can be stopped at any time.
    """
    if show:
        print(f"charlstm {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:  # there is nothing to do, and stdout is for what was done
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


@app.command(cls=_Command)
def train(
    context: typer.Context,
    corpora: CorpusNames = None,
    name: Annotated[
        str | None, _option("--name", "The run's name; that of the text if none is given.", RUNNING, show_default=False)
    ] = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    hidden: Annotated[int | None, _option("--hidden", "Cells in a layer." + OPEN, MODEL, show_default=False)] = None,
    layers: Annotated[int | None, _option("--layers", "LSTM layers." + OPEN, MODEL, show_default=False)] = None,
    dropout: Annotated[
        float | None,
        _option(
            "--dropout",
            "Share of outputs dropped in training; recurrent weights by what is above 0.25." + OPEN,
            MODEL,
            show_default=False,
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        _option(
            "--init-from",
            "Begin with the weights of this run instead of random ones.",
            MODEL,
            show_default=False,
            metavar="RUN",
            autocompletion=_complete_run,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        _option(
            "--batch",
            f"Streams of text read side by side; {DEFAULTS.batch} if not given.",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    seq: Annotated[
        int | None,
        _option(
            "--seq",
            f"Characters in a window of backpropagation; {DEFAULTS.seq} if not given.",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    optimizer: Annotated[Optimizer, _option("--optimizer", "How weights are changed.", LEARNING)] = DEFAULTS.optimizer,
    lr: Annotated[
        float | None,
        _option(
            "--lr", "Highest learning rate; one that suits the optimizer if not given.", LEARNING, show_default=False
        ),
    ] = None,
    clip: Annotated[float, _option("--clip", "Largest norm of a gradient; 0: no limit.", LEARNING)] = DEFAULTS.clip,
    val_fraction: Annotated[
        float | None,
        _option(
            "--val-fraction",
            f"Share of the text, from its end, that is held out; {DEFAULTS.val_fraction:g}, or less of a very long text.",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    eval_every: Annotated[
        int, _option("--eval-every", "Steps between looks at the held-out text; 0: some 20 a run.", LEARNING)
    ] = DEFAULTS.eval_every,
    seed: Annotated[int, _option("--seed", "Of all random numbers.", LEARNING)] = DEFAULTS.seed,
    encoding: Annotated[str, _option("--encoding", "Of the text.", RUNNING)] = "utf-8",
    if_exists: Annotated[IfExists, _option("--if-exists", "What to do if the run exists.", RUNNING)] = "fail",
    display: Display = "auto",
    save_every: SaveEvery = HABITS.save_every_s,
    preview_every: PreviewEvery = HABITS.preview_every_s,
    checkpoints: Checkpoints = Path("checkpoints"),
    threads: Threads = 0,
) -> int:
    """Learn a text. Writes NAME.npz, to resume, and NAME.best.npz, to sample from.

    charlstm train trumptweets.txt --minutes 20                        # one file, for 20 minutes
    charlstm train letters/ --name letters --display bar               # all .txt files of a folder
    charlstm train tweets.txt --minutes 20 --if-exists resume          # start, or go on: for cron
    charlstm train letters.txt --init-from fables --minutes 5          # build on another run
    """
    settings: dict[str, Any] = {
        "hidden": hidden, "layers": layers, "batch": batch, "seq": seq, "optimizer": optimizer, "lr": lr, "clip": clip,
        "dropout": dropout, "val_fraction": val_fraction, "eval_every": eval_every, "seed": seed,
    }  # fmt: skip
    TrainConfig(**{key: value for key, value in settings.items() if value is not None})  # refuses what is out of range
    settings = {key: value for key, value in settings.items() if _was_given(context, key)}
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import api

    def begin(habits: Habits, stop: Stop) -> Iterable[Event]:
        return api.train(
            corpora or [], name=name, checkpoints=checkpoints, encoding=encoding, if_exists=if_exists, init_from=init_from,
            stop=stop, **settings, **vars(budget), **vars(habits),
        )  # fmt: skip

    return driving.drive(begin, display, save_every, preview_every, threads)


@app.command(cls=_Command)
def resume(
    context: typer.Context,
    run: Run = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    display: Display = "auto",
    save_every: SaveEvery = HABITS.save_every_s,
    preview_every: PreviewEvery = HABITS.preview_every_s,
    checkpoints: Checkpoints = Path("checkpoints"),
    threads: Threads = 0,
) -> int:
    """Go on with a run exactly where it stopped, or longer than was planned.

    charlstm resume                                # what was interrupted, to the end that was planned
    charlstm resume trumptweets --minutes 20       # a named run, for another 20 minutes
    """
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import api

    def begin(habits: Habits, stop: Stop) -> Iterable[Event]:
        return api.resume(run, checkpoints=checkpoints, stop=stop, **vars(budget), **vars(habits))

    return driving.drive(begin, display, save_every, preview_every, threads)


@app.command(cls=_Command)
def sample(
    run: Run = None,
    temp: Annotated[
        float, _option("--temp", "Below 1 safer, above 1 wilder; 0: always the likeliest.", CHOICE)
    ] = SAMPLE_DEFAULTS.temperature,
    top_k: Annotated[
        int, _option("--top-k", "Choose among the k likeliest; 0: among all.", CHOICE)
    ] = SAMPLE_DEFAULTS.top_k,
    top_p: Annotated[
        float, _option("--top-p", "Choose among the likeliest that make up this probability.", CHOICE)
    ] = SAMPLE_DEFAULTS.top_p,
    seed: Annotated[
        int | None,
        _option(
            "--seed", "Of the random numbers; drawn, and told on stderr, if none is given.", CHOICE, show_default=False
        ),
    ] = None,
    length: Annotated[
        int | None,
        _option(
            "--length",
            f"New characters; 0: no end. {SAMPLE_DEFAULTS.length} unless --lines is given.",
            ENDING,
            show_default=False,
        ),
    ] = None,
    lines: Annotated[
        int, _option("--lines", "Whole lines to write, the prompt's own not counted; 0: does not matter.", ENDING)
    ] = SAMPLE_DEFAULTS.lines,
    stop: Annotated[str, _option("--stop", "End before this text.", ENDING, show_default=False)] = SAMPLE_DEFAULTS.stop,
    prompt: Annotated[
        str, _option("--prompt", "How the text begins; '-' reads standard input.", ENDING, show_default=False)
    ] = SAMPLE_DEFAULTS.prompt,
    prompt_file: Annotated[
        Path | None,
        _option(
            "--prompt-file",
            "A file with how the text begins, in UTF-8; its last line end does not count.",
            ENDING,
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        Unknown, _option("--unknown", "What to do with a prompt's characters that the model never saw.", ENDING)
    ] = SAMPLE_DEFAULTS.unknown,
    count: Annotated[int, _option("-n --count", "How many texts.", ENDING)] = 1,
    novelty: Annotated[
        bool,
        _option(
            "--novelty",
            "Tell how much of it stands in the training text, word for word, on stderr.",
            show_default=False,
        ),
    ] = False,
    interactive: Annotated[
        bool,
        _option(
            "-i --interactive",
            f"Type how a text begins, read how it goes on ({CONVERSATION_LENGTH} characters, if no --length is given), again and again.",
            show_default=False,
        ),
    ] = False,
    json: JSON = False,
    output: Annotated[
        Path | None,
        _option("--output", "Write to this file, which is replaced once all is written.", show_default=False),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Write new text from a run.

    charlstm sample --temp 0.8                                   # from the newest run
    charlstm sample trumptweets --prompt "I will " --lines 1     # go on from a beginning
    charlstm sample --lines 5 --output today.txt                 # a file that is never half written
    """
    if length is None:
        length = 0 if lines > 0 else CONVERSATION_LENGTH if interactive else SAMPLE_DEFAULTS.length
    if interactive:
        _refuse_beside("-i", {
            "--prompt": prompt, "--prompt-file": prompt_file, "-n": count != 1, "--json": json, "--novelty": novelty, "--output": output,
        })  # fmt: skip
    settings = SampleConfig(
        temperature=temp,
        top_k=top_k,
        top_p=top_p,
        length=length,
        stop=stop,
        lines=lines,
        unknown=unknown,
        prompt=prompt,
    )
    if output is None:
        driving.need_stdout()
    blas.prepare()
    with driving.leaving_on_signals():
        if interactive:
            from charlstm.interactive import converse

            return converse(run, checkpoints, settings, seed)
        from charlstm.render import write_samples

        return write_samples(
            run, checkpoints, settings, count, seed,
            prompt_file=prompt_file, novelty=novelty, as_json=json, output=output,
        )  # fmt: skip


@app.command(cls=_Command)
def info(
    run: Run = None,
    json: JSON = False,
    plot: Annotated[
        Path | None,
        _option("--plot", "Draw the curves into this .png or .svg, which needs matplotlib.", show_default=False),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Show what is in a run's file: model, text, settings, curves, health, size. With no run: the newest, and a list of all.

    charlstm info                        # the newest run
    charlstm info trumptweets --json     # for programs
    charlstm info trumptweets --plot curves.svg
    """
    driving.need_stdout()
    blas.prepare()
    from charlstm.report import write_info

    return write_info(run, checkpoints, as_json=json, plot=plot)


@app.command("eval", cls=_Command)
def evaluate(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run's name or file.", show_default=False, autocompletion=_complete_run),
    ],
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT", help="Texts, as 'train' takes them.", show_default=False, autocompletion=_complete_text
        ),
    ],
    cold: Annotated[
        int, _option("--cold", "Forget all after so many characters, as models with a window do; 0: never.")
    ] = 0,
    show: Annotated[
        bool, _option("--show", "The text itself, each character coloured by its surprise.", show_default=False)
    ] = False,
    json: JSON = False,
    unknown: Annotated[Unknown, _option("--unknown", "What to do with characters that the model never saw.")] = "error",
    encoding: Annotated[str, _option("--encoding", "Of the text.")] = "utf-8",
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Tell how well a run predicts a text, in nats and bits a character.

    charlstm eval trumptweets newtweets.txt              # one number
    charlstm eval trumptweets newtweets.txt --show       # the text, coloured by what surprised it
    """
    require("--cold", cold, 0, None)
    driving.need_stdout()
    blas.prepare()
    from charlstm.render import write_eval

    return write_eval(run, checkpoints, corpora, encoding, cold, unknown, show=show, as_json=json)


def _refuse_beside(option: str, others: dict[str, object]) -> None:
    """Refuse the others of an option's fellows that it has no use for."""
    if given := [name for name, value in others.items() if value]:
        raise UsageError(f"{option} and {given[0]} do not go together: leave one of them out")


def _budget(context: typer.Context, minutes: float | None, epochs: float | None, steps: int | None) -> Budget:
    """The budget; one that was typed stands above those of the environment."""
    given = {"minutes": minutes, "epochs": epochs, "steps": steps}
    typed = [name for name in given if _was_typed(context, name)]
    return Budget(**{name: value for name, value in given.items() if not typed or name in typed})  # type: ignore[arg-type]


def _was_given(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, or stands in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
