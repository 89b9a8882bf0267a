"""The command line interface: parse arguments, call the API, render the result, exit.

NumPy and everything that depends on it are imported only once a command is about to run, which keeps ``--help`` fast.
"""

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

from charlstm import __version__, blas
from charlstm.cli import completion, help, hints, signals
from charlstm.errors import CharlstmError, UsageError
from charlstm.settings import (
    CONVERSATION_LENGTH,
    Budget,
    DisplayKind,
    IfExists,
    Optimizer,
    RunOptions,
    SampleConfig,
    TrainConfig,
    Unknown,
    require,
)
from charlstm.training.control import Stop

if TYPE_CHECKING:
    from charlstm.events import Event

ORDER = ("train", "sample", "resume", "info", "eval")
"""The order in which ``--help`` lists the commands."""
DEFAULTS, SAMPLE_DEFAULTS, RUN_OPTIONS = TrainConfig(), SampleConfig(), RunOptions()


class _Command(TyperCommand):
    """A command whose help is formatted by `helptext`."""

    def get_help(self, ctx: Any) -> str:
        return help.of_command(ctx.command_path, self.help or "", self.get_params(ctx), ctx)


class _Program(TyperGroup):
    """The group of all commands, listed in `ORDER`, with help formatted by `helptext`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def get_help(self, ctx: Any) -> str:
        commands = [(name, self.commands[name].help or "") for name in self.list_commands(ctx)]
        return help.of_program(ctx.command_path, self.help or "", commands, self.get_params(ctx), ctx)

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
    _reopen_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may have characters that stdout can't encode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = app(argv, standalone_mode=False, prog_name="charlstm")
        return result if isinstance(result, int) else 0
    except CharlstmError as error:
        return _fail(str(error), error.exit_status)
    except typer.TyperException as error:
        return _fail(hints.explain(error, sys.argv[1:] if argv is None else argv), error.exit_code)
    except SystemExit as leaving:  # Typer exits this way when a pipe is closed
        return 0 if isinstance(leaving.__context__, BrokenPipeError) else int(leaving.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return signals.SIGNALS["SIGINT"]
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
        print(f"charlstm: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    return status


def _complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    return completion.complete_run(incomplete, Path(ctx.params.get("checkpoints") or "checkpoints"))


def _complete_text(incomplete: str) -> list[str]:
    return completion.complete_text(incomplete)


def _option(name: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """Build an option that can also be set by the environment variable CHARLSTM_NAME."""
    flags = name.split()
    env = "CHARLSTM_" + flags[-1].strip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=env, rich_help_panel=panel, **more)


LENGTH, MODEL, LEARNING, RUNNING = "Duration", "Model", "Training", "Running"
OPEN = " Chosen to suit the text and the budget if not given."
CHOICE, ENDING = "Choice of characters", "Prompt and length"

CorpusNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS",
        autocompletion=_complete_text,
        help="File paths, a directory, a glob pattern, '-' for standard input, or the name of a text in corpora/ (default: the built-in text).",
        show_default=False,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Name or file of a run (default: the newest run).",
        show_default=False,
        autocompletion=_complete_run,
    ),
]
Checkpoints = Annotated[Path, _option("--checkpoints", "Checkpoint folder.", RUNNING)]
Minutes = Annotated[float | None, _option("--minutes", "Stop after this many minutes.", LENGTH, show_default=False)]
Epochs = Annotated[
    float | None,
    _option("--epochs", "Stop after this many epochs, counted from the start of the run.", LENGTH, show_default=False),
]
Steps = Annotated[
    int | None,
    _option("--steps", "Stop after this many steps, counted from the start of the run.", LENGTH, show_default=False),
]
Display = Annotated[
    DisplayKind,
    _option(
        "--display",
        "Progress display: live screen, bar, lines, JSON on stdout, or none (auto: live on a terminal, otherwise lines).",
        RUNNING,
    ),
]
SaveEvery = Annotated[float, _option("--save-every", "Save a checkpoint every X seconds.", RUNNING)]
PreviewEvery = Annotated[
    float, _option("--preview-every", "Show a sample every X seconds during training (0: never).", RUNNING)
]
Threads = Annotated[int, _option("--threads", "Number of threads (0: one per core).", RUNNING)]
JSON = Annotated[bool, _option("--json", "Print JSON instead of text.", show_default=False)]


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.", show_default=False)] = False,
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


@app.command(cls=_Command)
def train(
    context: typer.Context,
    corpora: CorpusNames = None,
    name: Annotated[
        str | None, _option("--name", "Name of the run (default: the name of the text).", RUNNING, show_default=False)
    ] = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    hidden: Annotated[
        int | None, _option("--hidden", "Number of LSTM cells per layer." + OPEN, MODEL, show_default=False)
    ] = None,
    layers: Annotated[
        int | None, _option("--layers", "Number of LSTM layers." + OPEN, MODEL, show_default=False)
    ] = None,
    dropout: Annotated[
        float | None,
        _option(
            "--dropout",
            "Dropout rate; any excess over 0.25 also applies to recurrent weights." + OPEN,
            MODEL,
            show_default=False,
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        _option(
            "--init-from",
            "Start from the weights of this run instead of random ones.",
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
            f"Batch size: number of text streams trained in parallel (default: {DEFAULTS.batch}).",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    seq: Annotated[
        int | None,
        _option(
            "--seq",
            f"Length in characters of a window of backpropagation through time (default: {DEFAULTS.seq}).",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    optimizer: Annotated[Optimizer, _option("--optimizer", "Optimization algorithm.", LEARNING)] = DEFAULTS.optimizer,
    lr: Annotated[
        float | None,
        _option("--lr", "Peak learning rate (default: depends on the optimizer).", LEARNING, show_default=False),
    ] = None,
    clip: Annotated[float, _option("--clip", "Maximum gradient norm (0: no clipping).", LEARNING)] = DEFAULTS.clip,
    val_fraction: Annotated[
        float | None,
        _option(
            "--val-fraction",
            f"Fraction of the text to hold out, taken from its end (default: {DEFAULTS.val_fraction:g}, less for a very long text).",
            LEARNING,
            show_default=False,
        ),
    ] = None,
    eval_every: Annotated[
        int, _option("--eval-every", "Evaluate every N steps (0: about 20 times per run).", LEARNING)
    ] = DEFAULTS.eval_every,
    seed: Annotated[int, _option("--seed", "Random seed.", LEARNING)] = DEFAULTS.seed,
    encoding: Annotated[str, _option("--encoding", "Text encoding.", RUNNING)] = "utf-8",
    if_exists: Annotated[
        IfExists, _option("--if-exists", "Fail, resume or overwrite if the run already exists.", RUNNING)
    ] = "fail",
    display: Display = "auto",
    save_every: SaveEvery = RUN_OPTIONS.save_every_s,
    preview_every: PreviewEvery = RUN_OPTIONS.preview_every_s,
    checkpoints: Checkpoints = Path("checkpoints"),
    threads: Threads = 0,
) -> int:
    """Train a model on a text, and write NAME.npz (to resume) and NAME.best.npz (to sample from).

    charlstm train trumptweets.txt --minutes 20                        # train on one file for 20 minutes
    charlstm train letters/ --name letters --display bar               # train on all .txt files of a folder
    charlstm train tweets.txt --minutes 20 --if-exists resume          # start or resume, as in cron
    charlstm train letters.txt --init-from fables --minutes 5          # start from another run
    """
    settings: dict[str, Any] = {
        "hidden": hidden, "layers": layers, "batch": batch, "seq": seq, "optimizer": optimizer, "lr": lr, "clip": clip,
        "dropout": dropout, "val_fraction": val_fraction, "eval_every": eval_every, "seed": seed,
    }  # fmt: skip
    TrainConfig(**{key: value for key, value in settings.items() if value is not None})  # rejects values out of range
    settings = {key: value for key, value in settings.items() if _was_given(context, key)}
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import api

    def begin(options: RunOptions, stop: Stop) -> Iterable[Event]:
        return api.train(
            corpora or [], name=name, checkpoints=checkpoints, encoding=encoding, if_exists=if_exists, init_from=init_from,
            stop=stop, **settings, **vars(budget), **vars(options),
        )  # fmt: skip

    return signals.drive(begin, display, save_every, preview_every, threads)


@app.command(cls=_Command)
def resume(
    context: typer.Context,
    run: Run = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    display: Display = "auto",
    save_every: SaveEvery = RUN_OPTIONS.save_every_s,
    preview_every: PreviewEvery = RUN_OPTIONS.preview_every_s,
    checkpoints: Checkpoints = Path("checkpoints"),
    threads: Threads = 0,
) -> int:
    """Continue a run where it stopped, or extend it.

    charlstm resume                                # finish an interrupted run as planned
    charlstm resume trumptweets --minutes 20       # continue for another 20 minutes
    """
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import api

    def begin(options: RunOptions, stop: Stop) -> Iterable[Event]:
        return api.resume(run, checkpoints=checkpoints, stop=stop, **vars(budget), **vars(options))

    return signals.drive(begin, display, save_every, preview_every, threads)


@app.command(cls=_Command)
def sample(
    run: Run = None,
    temp: Annotated[
        float,
        _option(
            "--temp",
            "Sampling temperature: below 1 is safer, above 1 is wilder, 0 always picks the likeliest character.",
            CHOICE,
        ),
    ] = SAMPLE_DEFAULTS.temperature,
    top_k: Annotated[
        int, _option("--top-k", "Choose among the N likeliest characters (0: all).", CHOICE)
    ] = SAMPLE_DEFAULTS.top_k,
    top_p: Annotated[
        float, _option("--top-p", "Choose among the likeliest characters that together have this probability.", CHOICE)
    ] = SAMPLE_DEFAULTS.top_p,
    seed: Annotated[
        int | None,
        _option("--seed", "Random seed (default: a random one, printed on stderr).", CHOICE, show_default=False),
    ] = None,
    length: Annotated[
        int | None,
        _option(
            "--length",
            f"Generate at most N characters (0: no limit; default: {SAMPLE_DEFAULTS.length}, or no limit with --lines).",
            ENDING,
            show_default=False,
        ),
    ] = None,
    lines: Annotated[
        int, _option("--lines", "Stop after N complete lines, excluding the prompt (0: no limit).", ENDING)
    ] = SAMPLE_DEFAULTS.lines,
    stop: Annotated[
        str, _option("--stop", "Stop when this text appears, and leave it out.", ENDING, show_default=False)
    ] = SAMPLE_DEFAULTS.stop,
    prompt: Annotated[
        str, _option("--prompt", "Text to continue ('-' reads it from standard input).", ENDING, show_default=False)
    ] = SAMPLE_DEFAULTS.prompt,
    prompt_file: Annotated[
        Path | None,
        _option(
            "--prompt-file",
            "UTF-8 file with the text to continue; its final newline is ignored.",
            ENDING,
            show_default=False,
        ),
    ] = None,
    unknown: Annotated[
        Unknown, _option("--unknown", "Fail on prompt characters that the model never saw, or skip them.", ENDING)
    ] = SAMPLE_DEFAULTS.unknown,
    count: Annotated[int, _option("-n --count", "Number of texts to generate.", ENDING)] = 1,
    novelty: Annotated[
        bool,
        _option(
            "--novelty",
            "Report on stderr how much of the sample is copied from the training text.",
            show_default=False,
        ),
    ] = False,
    interactive: Annotated[
        bool,
        _option(
            "-i --interactive",
            f"Read prompts line by line and continue each one ({CONVERSATION_LENGTH} characters unless --length is given).",
            show_default=False,
        ),
    ] = False,
    json: JSON = False,
    output: Annotated[
        Path | None,
        _option("--output", "Write to this file, replacing it only once the output is complete.", show_default=False),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Generate new text from a run.

    charlstm sample --temp 0.8                                   # sample the newest run
    charlstm sample trumptweets --prompt "I will " --lines 1     # continue a prompt
    charlstm sample --lines 5 --output today.txt                 # write a file, never a partial one
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
        signals.need_stdout()
    blas.prepare()
    with signals.leaving_on_signals():
        if interactive:
            from charlstm.cli.interactive import converse

            return converse(run, checkpoints, settings, seed)
        from charlstm.cli.sample import write_samples

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
        _option("--plot", "Draw the curves in this .png or .svg file (needs matplotlib).", show_default=False),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Show a run: model, text, settings, curves, health, size. Without RUN, show the newest one and list all runs.

    charlstm info                        # show the newest run and list all
    charlstm info trumptweets --json     # print JSON, for programs
    charlstm info trumptweets --plot curves.svg
    """
    signals.need_stdout()
    blas.prepare()
    from charlstm.cli.info import write_info

    return write_info(run, checkpoints, as_json=json, plot=plot)


@app.command("eval", cls=_Command)
def evaluate(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name or file of a run.", show_default=False, autocompletion=_complete_run),
    ],
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT", help="Texts, as for 'train'.", show_default=False, autocompletion=_complete_text
        ),
    ],
    context: Annotated[
        int, _option("--context", "Reset the state every N characters, as models with a fixed context do (0: never).")
    ] = 0,
    show: Annotated[
        bool,
        _option("--show", "Print the text, with each character coloured by how unexpected it is.", show_default=False),
    ] = False,
    json: JSON = False,
    unknown: Annotated[
        Unknown, _option("--unknown", "Fail on characters that the model never saw, or skip them.")
    ] = "error",
    encoding: Annotated[str, _option("--encoding", "Text encoding.")] = "utf-8",
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Measure how well a run predicts a text, in nats and bits per character.

    charlstm eval trumptweets newtweets.txt              # print the loss
    charlstm eval trumptweets newtweets.txt --show       # print the text in colours
    """
    require("--context", context, 0, None)
    signals.need_stdout()
    blas.prepare()
    from charlstm.cli.evaluate import write_eval

    return write_eval(run, checkpoints, corpora, encoding, context, unknown, show=show, as_json=json)


def _refuse_beside(option: str, others: dict[str, object]) -> None:
    """Reject options that can't be combined with this one."""
    if given := [name for name, value in others.items() if value]:
        raise UsageError(f"{option} and {given[0]} can't be combined: leave one of them out")


def _budget(context: typer.Context, minutes: float | None, epochs: float | None, steps: int | None) -> Budget:
    """Return the budget; a limit given on the command line overrides those from the environment."""
    given = {"minutes": minutes, "epochs": epochs, "steps": steps}
    typed = [name for name in given if _was_typed(context, name)]
    return Budget(**{name: value for name, value in given.items() if not typed or name in typed})  # type: ignore[arg-type]


def _was_given(context: typer.Context, name: str) -> bool:
    """Return whether an option was set, on the command line or in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
