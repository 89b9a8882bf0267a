"""The commands `train` and `resume`: a request made from the options, driven through a display to its end."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Generator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from charlstm import blas, launcher
from charlstm.cli import hints, signals
from charlstm.cli.options import (
    DEFAULTS,
    LEARNING,
    READING,
    Batch,
    Cache,
    Checkpoints,
    Clip,
    CorpusNames,
    Display,
    Dropout,
    Encoding,
    Epochs,
    EvalEvery,
    Field,
    Hidden,
    IfExistsOption,
    InitFrom,
    Layers,
    LearningRate,
    Minutes,
    Name,
    OptimizerOption,
    PreviewEvery,
    QuietRun,
    Run,
    SaveEvery,
    Seed,
    Separator,
    Steps,
    SyncEvery,
    Text,
    Threads,
    Unescape,
    ValFraction,
    WindowLength,
    complete_text,
    option,
)
from charlstm.cli.output import need_stdout, write_path
from charlstm.cli.precedence import given, text_options
from charlstm.cli.reading import reading_bar
from charlstm.errors import SIGNALS, CharlstmError, UsageError
from charlstm.settings import (
    AUTO,
    RUNS,
    SETTINGS,
    Budget,
    DisplayKind,
    ResumeRequest,
    RunOptions,
    TrainRequest,
    Unknown,
)
from charlstm.training.control import Stop

if TYPE_CHECKING:
    from charlstm.events import Event

RUN_OPTIONS = RunOptions()

ValFile = Annotated[
    str,
    option(
        "--val-file",
        "Hold out this file instead, and train on the whole text.",
        LEARNING,
        show_default=False,
        metavar="FILE",
        autocompletion=complete_text,
    ),
]
UnknownInValFile = Annotated[
    Unknown,
    option("--unknown", "Fail on characters of --val-file that the text does not have, or skip them.", LEARNING),
]
ValFileNow = Annotated[
    str,
    option(
        "--val-file",
        "Where the --val-file of the run is now, if it has moved.",
        READING,
        show_default=False,
        metavar="FILE",
        autocompletion=complete_text,
    ),
]


def train(
    context: typer.Context,
    corpora: CorpusNames = None,
    name: Name = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    hidden: Hidden = None,
    layers: Layers = None,
    dropout: Dropout = None,
    init_from: InitFrom = AUTO,
    batch: Batch = None,
    seq: WindowLength = None,
    optimizer: OptimizerOption = DEFAULTS.optimizer,
    lr: LearningRate = None,
    clip: Clip = DEFAULTS.clip,
    val_fraction: ValFraction = None,
    val_file: ValFile = "",
    unknown: UnknownInValFile = "error",
    eval_every: EvalEvery = DEFAULTS.eval_every,
    sync_every: SyncEvery = DEFAULTS.sync_every,
    seed: Seed = DEFAULTS.seed,
    encoding: Encoding = "utf-8",
    field: Field = "",
    separator: Separator = "\n",
    unescape: Unescape = False,
    cache: Cache = AUTO,
    if_exists: IfExistsOption = "fail",
    display: Display = "auto",
    quiet: QuietRun = False,
    save_every: SaveEvery = RUN_OPTIONS.save_every_s,
    preview_every: PreviewEvery = RUN_OPTIONS.preview_every_s,
    checkpoints: Checkpoints = RUNS,
    threads: Threads = 0,
) -> int:
    """Train a model on a text, and write NAME.npz (to resume) and NAME.best.npz (to sample from).

    charlstm train trumptweets.txt --minutes 20                        # train on one file for 20 minutes
    charlstm train tweets.txt --minutes 20 --if-exists resume          # start or resume, as in cron
    charlstm train tweets.csv --field text --unescape                  # train on one column of a file
    charlstm train letters.txt --init-from fables --minutes 5          # start from another run
    """

    def request() -> TrainRequest:
        if not corpora and _has_input(sys.stdin):
            raise UsageError("standard input has text, and no CORPUS was given: write '-' to read standard input")
        return TrainRequest(
            tuple(corpora or ()), given(context, SETTINGS), _budget(context), _run_options(context), checkpoints, name, text_options(context), if_exists, init_from,
            val_file, unknown,
        )  # fmt: skip

    return on_ranks(lambda: drive(request(), _display(context, display, quiet)))


def _has_input(stdin: TextIO | None) -> bool:
    """Return whether a pipe or a file on standard input has data now.

    It never waits. An empty, closed or silent standard input, as cron and services have it, is no text; nor are devices.
    """
    try:
        number = stdin.fileno()  # type: ignore[union-attr]
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):
            return os.lseek(number, 0, os.SEEK_CUR) < status.st_size
        if not stat.S_ISFIFO(status.st_mode):
            return False
        import fcntl
        import termios

        waiting = fcntl.ioctl(number, termios.FIONREAD, bytes(4))  # select would also report the end of the pipe
        return int.from_bytes(waiting, sys.byteorder) > 0
    except (OSError, ValueError, AttributeError, ImportError):  # closed, or not a system of this kind
        return False


def resume(
    context: typer.Context,
    run: Run = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    text: Text = None,
    val_file: ValFileNow = "",
    cache: Cache = AUTO,
    display: Display = "auto",
    quiet: QuietRun = False,
    save_every: SaveEvery = RUN_OPTIONS.save_every_s,
    preview_every: PreviewEvery = RUN_OPTIONS.preview_every_s,
    checkpoints: Checkpoints = RUNS,
    threads: Threads = 0,
) -> int:
    """Continue a run where it stopped, or extend it.

    charlstm resume                                # finish an interrupted run as planned
    charlstm resume trumptweets --minutes 20       # continue for another 20 minutes
    """

    def request() -> ResumeRequest:
        return ResumeRequest(run, _budget(context), _run_options(context), checkpoints, tuple(text or ()), val_file)

    return on_ranks(lambda: drive(request(), _display(context, display, quiet)))


def on_ranks(program: Callable[[], int], trains: bool = True, shared: bool = True) -> int:
    """Run a program here, or under a launcher on rank 0 while the other ranks work for it; return the exit status.

    If its work can't be `shared`, the other ranks end at once.

    Under a launcher, everything that can fail in one rank alone belongs into the program, because the others wait.
    """
    rank, ranks = launcher.started_as()
    if ranks == 1 or not shared:
        return program() if rank == 0 else 0
    blas.prepare()
    from charlstm.training import rank_parallel

    return rank_parallel.run(program, trains)


def drive(request: TrainRequest | ResumeRequest, kind: DisplayKind) -> int:
    """Do what a request asks for, show it on a display, and return the exit status.

    Raises:
        CharlstmError: standard output is closed but needed, or the session fails.
    """
    from charlstm.display.select import open_display
    from charlstm.events import Finished

    if kind == "json":
        need_stdout()
    blas.prepare()
    stop = Stop()
    with signals.stopping(stop), open_display(kind, sys.stdout, sys.stderr) as display:
        options = replace(request.options, stream_preview=display.stream_preview)
        if kind == "none":
            options = replace(options, preview_every_s=0.0)
        for event in _begin(replace(request, options=options), stop, kind):
            display.show(event if kind == "json" else _spelled(event))
            if stop.suspend:
                stop.suspend = False
                display.suspend()
                signals.stop_process()
            if display.lost and kind == "json":  # nobody gets the events any more
                stop.reason = stop.reason or "SIGPIPE"
    if kind == "json" and display.lost and not isinstance(display.lost, BrokenPipeError):
        raise CharlstmError(f"standard output can't be written: {display.lost.strerror}; the run is saved: make room")
    if isinstance(event, Finished) and kind != "json" and sys.stdout is not None:
        write_path(event.path)
    return SIGNALS.get(stop.reason or "", 0)


def _begin(request: TrainRequest | ResumeRequest, stop: Stop, kind: DisplayKind) -> Generator[Event, None, None]:
    """Read the text, with a bar if progress is shown, and return the events."""
    from charlstm import api  # loads NumPy

    with reading_bar(shown=kind not in ("none", "json")) as on_read:
        return api.begin(replace(request, options=replace(request.options, on_read=on_read)), stop)


def _spelled(event: Event) -> Event:
    """Return the event with the settings in its messages spelled as options."""
    said = {name: getattr(event, name) for name in ("note", "hint", "reason") if hasattr(event, name)}
    changes: dict[str, Any] = {name: hints.spell(text) for name, text in said.items()}
    if hasattr(event, "notes"):
        changes["notes"] = tuple(map(hints.spell, event.notes))
    return replace(event, **changes) if changes else event


def _budget(context: typer.Context) -> Budget:
    return Budget(**{f.name: context.params[f.name] for f in fields(Budget)})


def _display(context: typer.Context, kind: DisplayKind, quiet: bool) -> DisplayKind:
    """Return the display to use; raises UsageError if the command line has -q and another one."""
    if quiet and kind != "none" and len(given(context, ("quiet", "display"), ("COMMANDLINE",))) == 2:
        raise UsageError(f"--quiet is short for --display none, so leave out --quiet, or --display {kind}")
    return "none" if quiet else kind


def _run_options(context: typer.Context) -> RunOptions:
    params = context.params
    return RunOptions(
        save_every_s=params["save_every"],
        preview_every_s=params["preview_every"],
        threads=params["threads"],
        cache=params["cache"],
    )
