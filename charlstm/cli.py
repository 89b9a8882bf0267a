"""The command line: parse, call, render, exit. NumPy and all that needs it are imported once a command is known to run."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlstm import __version__, blas
from charlstm.errors import CharlstmError
from charlstm.settings import (
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
    from charlstm.session import Session, Stop

SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143}
"""The signals that end training after saving, and the exit status of each."""
DEFAULTS, SAMPLE_DEFAULTS, HABITS = TrainConfig(), SampleConfig(), Habits()

app = typer.Typer(
    name="charlstm",
    help="Learn any text, and write new text in its style: a character-level LSTM in NumPy.",
    no_args_is_help=True,
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
        message = error.format_message().rstrip(".")
        return _complain(f"{message}; see 'charlstm --help'", error.exit_code) if message else error.exit_code
    except SystemExit as leaving:  # Typer's answer to a closed pipe
        return 0 if isinstance(leaving.__context__, BrokenPipeError) else int(leaving.code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return SIGNALS["SIGINT"]
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


def _need_stdout() -> None:
    """Refuse to make what nobody could get."""
    if sys.stdout is None:
        raise CharlstmError("standard output is closed: give it a file, a pipe or a terminal")


def _complain(sentence: str, status: int) -> int:
    print(f"charlstm: {' '.join(sentence.split())}", file=sys.stderr)
    return status


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
        metavar="[CORPUS]...",
        help="Texts: paths, a directory, a pattern, '-' for standard input, or the name of a text in corpora/. None: the built-in text.",
        show_default=False,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="A run's name or file; the newest run if none is given.", show_default=False),
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
    show: Annotated[bool, typer.Option("--version", help="Show the version and exit.", show_default=False)] = False,
) -> None:
    """Learn any text, and write new text in its style: a character-level LSTM in NumPy."""
    if show:
        print(f"charlstm {__version__}")
        raise typer.Exit


@app.command()
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
            "--dropout", "Share of outputs and recurrent weights dropped in training." + OPEN, MODEL, show_default=False
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        _option("--init-from", "Begin with the weights of this run instead of random ones.", MODEL, show_default=False),
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
        _option("--lr", "Highest learning rate." + OPEN, LEARNING, show_default=False),
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

    charlstm train trumptweets.txt --minutes 20
    """
    settings: dict[str, Any] = {
        "hidden": hidden, "layers": layers, "batch": batch, "seq": seq, "optimizer": optimizer, "lr": lr, "clip": clip,
        "dropout": dropout, "val_fraction": val_fraction, "eval_every": eval_every, "seed": seed,
    }  # fmt: skip
    wishes = {key: value for key, value in settings.items() if value is not None}
    TrainConfig(**wishes)  # refuses what is out of range, before anything takes time
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import session

    def begin(habits: Habits, stop: Stop) -> Session:
        return session.start(
            corpora or [], wishes, budget, checkpoints, habits, stop,
            name=name, encoding=encoding, if_exists=if_exists, init_from=init_from,
        )  # fmt: skip

    return _train(begin, display, save_every, preview_every, threads)


@app.command()
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

    charlstm resume trumptweets --minutes 20
    """
    budget = _budget(context, minutes, epochs, steps)
    blas.prepare()
    from charlstm import session

    def begin(habits: Habits, stop: Stop) -> Session:
        return session.resume(run, budget, checkpoints, habits, stop)

    return _train(begin, display, save_every, preview_every, threads)


@app.command()
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
        int, _option("--lines", "Whole lines to write; 0: does not matter.", ENDING)
    ] = SAMPLE_DEFAULTS.lines,
    stop: Annotated[str, _option("--stop", "End before this text.", ENDING, show_default=False)] = SAMPLE_DEFAULTS.stop,
    prompt: Annotated[
        str, _option("--prompt", "How the text begins; '-' reads standard input.", ENDING, show_default=False)
    ] = SAMPLE_DEFAULTS.prompt,
    unknown: Annotated[
        Unknown, _option("--unknown", "What to do with a prompt's characters that the model never saw.", ENDING)
    ] = SAMPLE_DEFAULTS.unknown,
    count: Annotated[int, _option("-n --count", "How many texts.", ENDING)] = 1,
    json: JSON = False,
    output: Annotated[
        Path | None,
        _option("--output", "Write to this file, which is replaced once all is written.", show_default=False),
    ] = None,
    checkpoints: Checkpoints = Path("checkpoints"),
) -> int:
    """Write new text from a run.

    charlstm sample --temp 0.8
    """
    if length is None:
        length = 0 if lines > 0 else SAMPLE_DEFAULTS.length
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
        _need_stdout()
    blas.prepare()
    from charlstm.render import write_samples

    return write_samples(run, checkpoints, settings, count, seed, as_json=json, output=output)


@app.command()
def info(run: Run = None, json: JSON = False, checkpoints: Checkpoints = Path("checkpoints")) -> int:
    """Show what is in a run's file: model, text, settings, history, size."""
    _need_stdout()
    blas.prepare()
    from charlstm.render import write_info

    return write_info(run, checkpoints, as_json=json)


@app.command("eval")
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name or file.", show_default=False)],
    corpora: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="Texts, as `train` takes them.", show_default=False)
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

    charlstm eval trumptweets newtweets.txt
    """
    require("--cold", cold, 0, None)
    _need_stdout()
    blas.prepare()
    from charlstm.render import write_eval

    return write_eval(run, checkpoints, corpora, encoding, cold, show=show, as_json=json, skip=unknown == "skip")


def _budget(context: typer.Context, minutes: float | None, epochs: float | None, steps: int | None) -> Budget:
    """The budget; one that was typed stands above those of the environment."""
    given = {"minutes": minutes, "epochs": epochs, "steps": steps}
    typed = [name for name in given if _was_typed(context, name)]
    return Budget(**{name: value for name, value in given.items() if not typed or name in typed})  # type: ignore[arg-type]


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _train(
    begin: Callable[[Habits, Stop], Session], kind: DisplayKind, save_every: float, preview_every: float, threads: int
) -> int:
    """Drive a session through a display; returns the exit status."""
    from charlstm import events
    from charlstm.display import open_display
    from charlstm.session import Stop

    require("--threads", threads, 0, 1024)
    if kind == "json":
        _need_stdout()
    stop = Stop()
    with _signals_set(stop), open_display(kind, sys.stdout, sys.stderr) as display:
        habits = Habits(
            save_every,
            preview_every if kind != "none" else 0.0,
            stream_preview=display.stream_preview,
            threads=threads or blas.cores(),
        )
        for event in begin(habits, stop).run():
            display.show(event)
            if stop.rest:
                stop.rest = False
                display.rest()
                _stop_process()
            if display.gone and kind == "json":  # nobody reads what it was to tell
                stop.reason = stop.reason or "SIGPIPE"
    if isinstance(event, events.Finished) and kind != "json" and sys.stdout is not None:
        sys.stdout.buffer.write(os.fsencode(event.path) + b"\n")  # as the system has it, so that a script can use it
        sys.stdout.flush()
    return SIGNALS.get(stop.reason or "", 0)


@contextmanager
def _signals_set(stop: Stop) -> Iterator[None]:
    """While it lasts, a signal asks training to end after its step, SIGUSR1 to save then; a second SIGINT ends it at once.

    As long as there is nothing to save, because the text is still being read, the first one ends it. SIGCONT corrects the clock.
    """
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not stop.heard or stop.reason == name == "SIGINT":
            raise SystemExit(SIGNALS[name])
        stop.reason = name

    def save(number: int, frame: FrameType | None) -> None:
        stop.save = True

    def rest(number: int, frame: FrameType | None) -> None:
        stop.rest = stop.heard  # a display has the terminal then, and must give it back first
        if not stop.heard:
            _stop_process()

    def go_on(number: int, frame: FrameType | None) -> None:
        stop.clock.go_on()

    for name, handler in (("SIGUSR1", save), ("SIGCONT", go_on), ("SIGTSTP", rest)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_process() -> None:
    """Stop as SIGTSTP does where nobody handles it; returns when the process goes on."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)
