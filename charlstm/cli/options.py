"""The options of all commands: names, help texts and environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from charlstm.cli import completion
from charlstm.errors import UsageError
from charlstm.settings import (
    CONVERSATION_LENGTH,
    DisplayKind,
    IfExists,
    Optimizer,
    SampleConfig,
    TrainConfig,
    Unknown,
)
from charlstm.text.sources import expand

DEFAULTS, SAMPLE_DEFAULTS = TrainConfig(), SampleConfig()


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a run in the checkpoint folder that was given."""
    return completion.complete_run(incomplete, expand(ctx.params.get("checkpoints") or "checkpoints"))


def complete_text(incomplete: str) -> list[str]:
    """Complete the name or path of a text."""
    return completion.complete_text(incomplete)


def option(name: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """Build an option that can also be set by the environment variable CHARLSTM_NAME."""
    flags = name.split()
    env = "CHARLSTM_" + flags[-1].strip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=env, rich_help_panel=panel, **more)


def expanded(path: Path | None) -> Path | None:
    """Replace a leading ``~`` in the value of an option: most shells leave that of ``--output=~/file`` as it is."""
    return None if path is None else expand(path)


def unescape(text: str) -> str:
    """Return a text in which \\n, \\t and \\\\ are a newline, a tab and a backslash."""
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text)


def parse_temps(temps: str) -> list[float]:
    """Read the temperatures of --temps."""
    try:
        values = [float(temp) for temp in temps.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--temps {temps!r} is not a list of numbers: write it as in --temps 0.4,0.7,1.0") from None
    for temp in values:
        SampleConfig(temperature=temp)
    return values


LENGTH, READING, MODEL, LEARNING, RUNNING = "Duration", "Reading", "Model", "Training", "Running"
OPEN = " Chosen to suit the text and the budget if not given."
CHOICE, ENDING = "Choice of characters", "Prompt and length"

CorpusNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CORPUS",
        autocompletion=complete_text,
        help="File paths (.gz and .zip are read as they are), a directory, a glob pattern, '-' for standard input, or the name of a text in corpora/ (default: the built-in text).",
        show_default=False,
    ),
]
Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Name or file of a run (default: the newest run).",
        show_default=False,
        autocompletion=complete_run,
    ),
]
Checkpoints = Annotated[Path, option("--checkpoints", "Checkpoint folder.", RUNNING, callback=expanded)]
Minutes = Annotated[float | None, option("--minutes", "Stop after this many minutes.", LENGTH, show_default=False)]
Epochs = Annotated[
    float | None,
    option("--epochs", "Stop after this many epochs, counted from the start of the run.", LENGTH, show_default=False),
]
Steps = Annotated[
    int | None,
    option("--steps", "Stop after this many steps, counted from the start of the run.", LENGTH, show_default=False),
]
Display = Annotated[
    DisplayKind,
    option(
        "--display",
        "Progress display: live screen, bar, lines, JSON on stdout, or none (auto: live on a terminal, otherwise lines).",
        RUNNING,
    ),
]
SaveEvery = Annotated[float, option("--save-every", "Save a checkpoint every X seconds.", RUNNING)]
PreviewEvery = Annotated[
    float, option("--preview-every", "Show a sample every X seconds during training (0: never).", RUNNING)
]
Threads = Annotated[int, option("--threads", "Number of threads (0: one per core).", RUNNING)]
QuietRun = Annotated[
    bool, option("-q --quiet", "Show no progress: short for --display none.", RUNNING, show_default=False)
]
Quiet = Annotated[
    bool, option("-q --quiet", "Do not name the run, its step and the seed on stderr.", show_default=False)
]
JSON = Annotated[bool, option("--json", "Print JSON instead of text.", show_default=False)]
Name = Annotated[
    str | None, option("--name", "Name of the run (default: the name of the text).", RUNNING, show_default=False)
]
Hidden = Annotated[int | None, option("--hidden", "Number of LSTM cells per layer." + OPEN, MODEL, show_default=False)]
Layers = Annotated[int | None, option("--layers", "Number of LSTM layers." + OPEN, MODEL, show_default=False)]
Dropout = Annotated[
    float | None,
    option(
        "--dropout",
        "Dropout rate; any excess over 0.25 also applies to recurrent weights." + OPEN,
        MODEL,
        show_default=False,
    ),
]
InitFrom = Annotated[
    str,
    option(
        "--init-from",
        "Start from this run's weights, at its size or larger (auto: the English base if it suits the text; none: random).",
        MODEL,
        metavar="RUN",
        autocompletion=complete_run,
    ),
]
Batch = Annotated[
    int | None,
    option(
        "--batch",
        f"Batch size: number of text streams trained in parallel (default: {DEFAULTS.batch}).",
        LEARNING,
        show_default=False,
    ),
]
WindowLength = Annotated[
    int | None,
    option(
        "--seq",
        f"Length in characters of a window of backpropagation through time (default: {DEFAULTS.seq}).",
        LEARNING,
        show_default=False,
    ),
]
OptimizerOption = Annotated[Optimizer, option("--optimizer", "Optimization algorithm.", LEARNING)]
LearningRate = Annotated[
    float | None,
    option("--lr", "Peak learning rate (default: depends on the optimizer).", LEARNING, show_default=False),
]
Clip = Annotated[float, option("--clip", "Maximum gradient norm (0: no clipping).", LEARNING)]
ValFraction = Annotated[
    float | None,
    option(
        "--val-fraction",
        f"Fraction of the text to hold out, taken from its end (default: {DEFAULTS.val_fraction:g}, less for a very long text).",
        LEARNING,
        show_default=False,
    ),
]
EvalEvery = Annotated[int, option("--eval-every", "Evaluate every N steps (0: about 20 times per run).", LEARNING)]
SyncEvery = Annotated[
    int, option("--sync-every", "On several hosts, average them every N steps (1: share all gradients).", LEARNING)
]
Seed = Annotated[int, option("--seed", "Random seed.", LEARNING)]
Encoding = Annotated[str, option("--encoding", "Text encoding.", READING)]
Field = Annotated[
    str,
    option(
        "--field",
        "Read this field of each record in .csv, .tsv, .json and .jsonl files (a column number if there is no header).",
        READING,
        show_default=False,
    ),
]
Separator = Annotated[
    str,
    option(
        "--separator",
        r"What ends each record; \n and \t are understood (default: a line end).",
        READING,
        show_default=False,
    ),
]
Unescape = Annotated[bool, option("--unescape", "Decode HTML entities such as &amp;.", READING, show_default=False)]
Cache = Annotated[
    str,
    option("--cache", "Cache folder for texts of 32 MB or more (none: keep them in memory).", RUNNING, metavar="DIR"),
]
Text = Annotated[
    list[str] | None,
    option(
        "--text",
        "Where the text of the run is now, if it has moved ('-': standard input).",
        READING,
        show_default=False,
        metavar="CORPUS",
        autocompletion=complete_text,
    ),
]
IfExistsOption = Annotated[
    IfExists,
    option(
        "--if-exists",
        "If the run exists: fail, resume it, update it (resume, or start over from its weights if the text has changed), or overwrite it.",
        RUNNING,
    ),
]
Temperature = Annotated[
    float,
    option(
        "-t --temp",
        "Sampling temperature: below 1 is safer, above 1 is wilder, 0 always picks the likeliest character.",
        CHOICE,
    ),
]
TopK = Annotated[int, option("--top-k", "Choose among the N likeliest characters (0: all).", CHOICE)]
TopP = Annotated[
    float, option("--top-p", "Choose among the likeliest characters that together have this probability.", CHOICE)
]
MinP = Annotated[
    float, option("--min-p", "Choose among characters at least X times as likely as the likeliest (0: all).", CHOICE)
]
Temps = Annotated[
    str, option("--temps", "Write at each of these temperatures, as in 0.4,0.7,1.0.", CHOICE, show_default=False)
]
SampleSeed = Annotated[
    int | None, option("--seed", "Random seed (default: a random one, printed on stderr).", CHOICE, show_default=False)
]
Length = Annotated[
    int | None,
    option(
        "-l --length",
        f"Generate at most N characters (0: no limit; default: {SAMPLE_DEFAULTS.length}, or no limit with --lines).",
        ENDING,
        show_default=False,
    ),
]
Lines = Annotated[int, option("--lines", "Stop after N complete lines, excluding the prompt (0: no limit).", ENDING)]
MaxChars = Annotated[
    int,
    option(
        "--max-chars",
        "End each line (the text, without --lines) at a line or sentence end within N characters (0: no limit).",
        ENDING,
    ),
]
NoCopy = Annotated[
    int, option("--no-copy", "Write no passage of N characters that is in the training text (0: any).", ENDING)
]
Stop = Annotated[
    str,
    option(
        "--stop",
        "Stop when this text appears, and leave it out; \\n and \\t are understood.",
        ENDING,
        show_default=False,
    ),
]
TextSeparator = Annotated[
    str | None,
    option(
        "--separator",
        "Line between texts (default: an empty line, or none with --lines 1); \\n and \\t are understood.",
        ENDING,
        show_default=False,
    ),
]
Prompt = Annotated[
    str, option("-p --prompt", "Text to continue ('-' reads it from standard input).", ENDING, show_default=False)
]
PromptFile = Annotated[
    Path | None,
    option(
        "--prompt-file",
        "UTF-8 file with the text to continue; its final newline is ignored.",
        ENDING,
        show_default=False,
        callback=expanded,
    ),
]
UnknownOption = Annotated[
    Unknown, option("--unknown", "Fail on characters that the model never saw, or skip them.", ENDING)
]
Count = Annotated[int, option("-n --count", "Number of texts to generate.", ENDING)]
Novelty = Annotated[
    bool,
    option(
        "--novelty", "Report on stderr how much of the sample is copied from the training text.", show_default=False
    ),
]
Interactive = Annotated[
    bool,
    option(
        "-i --interactive",
        f"Read prompts line by line and continue each one ({CONVERSATION_LENGTH} characters unless --length is given).",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    option(
        "-o --output",
        "Write to this file, replacing it only once the output is complete ('-': standard output).",
        show_default=False,
        callback=expanded,
        readable=False,
    ),
]
