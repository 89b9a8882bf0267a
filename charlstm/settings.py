"""All settings of training and sampling, with their defaults and limits; needs no NumPy.

The command line reads them before NumPy is imported. This keeps ``--help`` fast, and lets ``--threads`` take effect: BLAS
fixes its number of threads when NumPy loads. `charlstm.nn.config` defines the shape of a model.

A message about a setting contains its name in backticks, as in "`top_p` 2 is out of range". Each front end spells that
name as its users type it: see `charlstm.cli.hints.spell`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from charlstm import blas, launcher
from charlstm.errors import UsageError, did_you_mean
from charlstm.nn.config import COUNT, ModelSize, Range

Optimizer = Literal["muon", "adam", "rmsprop", "sgd"]
Unknown = Literal["error", "skip"]
IfExists = Literal["fail", "resume", "update", "overwrite"]
DisplayKind = Literal["auto", "live", "bar", "lines", "json", "none"]
OnRead = Callable[[int, int], None]
"""Called while a text is read, with the number of bytes read since the last call, and the size of its files (0: unknown)."""

MINUTES = Range(0, 1e9, open="low")
"""The possible time budgets, up to some two thousand years."""
DEFAULT_MINUTES = 5.0
"""Default time budget in minutes; `DEFAULT_EPOCHS` can end a run sooner."""
DEFAULT_EPOCHS = 60
"""Default limit in epochs, for a run that has no budget."""
PRETRAINED_MINUTES, PRETRAINED_EPOCHS = 1.0, 16
"""The same two limits for a run that starts from pretrained weights."""
SHORT_TEXT = 600_000
"""Maximum length in characters of a text that `PRETRAINED_MINUTES` applies to; a longer one gets `DEFAULT_MINUTES`."""
AUTO, NONE = "auto", "none"
"""Values of `init_from` that are not runs (the bundled base if it suits the text, and random weights), and of `cache`."""
RUNS = Path("checkpoints")
"""The default checkpoint folder."""


def default_budget(chars: int, pretrained: bool) -> tuple[float, int]:
    """Return the minutes and epochs of a run without a budget; the first to be reached ends it.

    Args:
        chars: length of the training text.
        pretrained: whether the run starts from pretrained weights.
    """
    if not pretrained:
        return DEFAULT_MINUTES, DEFAULT_EPOCHS
    return PRETRAINED_MINUTES if chars <= SHORT_TEXT else DEFAULT_MINUTES, PRETRAINED_EPOCHS


def check(settings: Any) -> None:
    """Raise a UsageError if a field of a dataclass is outside its `Range` or not among its `Literal` choices."""
    for name, limit in limits(type(settings)).items():  # type: ignore[arg-type]  # classes are hashable
        require(name, getattr(settings, name), limit)


@functools.cache
def limits(cls: type[Any]) -> dict[str, Range | tuple[str, ...]]:
    """Return the range or the choices of each field of a dataclass that has any."""
    result: dict[str, Range | tuple[str, ...]] = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Literal:
            result[name] = get_args(hint)
        elif get_origin(hint) is Annotated:
            result[name] = next(limit for limit in get_args(hint) if isinstance(limit, Range))
    return result


def require(name: str, value: Any, limit: Range | tuple[str, ...]) -> None:
    """Raise a UsageError for a value outside a range or not among some choices; None, a value not given, passes."""
    if value is None or value in limit:
        return
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    if isinstance(limit, Range):
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"`{name}` {shown} is not a finite number: it must be {limit}")
        raise UsageError(f"`{name}` {shown} is out of range: it must be {limit}")
    choices, near = ", ".join(limit), did_you_mean(str(value), limit)
    raise UsageError(f"`{name}` {shown} is unknown" + (f" ({choices}): {near}" if near else f": use one of {choices}"))


def check_seed(seed: int) -> None:
    """Raise a UsageError if a seed is negative."""
    require("seed", seed, Range(0))


@dataclass(frozen=True)
class TrainConfig(ModelSize):
    """The settings that define a run. They are saved with it, and `resume` does not change them."""

    batch: Annotated[int, Range(1, 65536)] = 32
    seq: Annotated[int, Range(1, 65536)] = 64
    optimizer: Optimizer = "muon"
    lr: Annotated[float | None, Range(0, open="low")] = None  # None: the optimizer's entry in `LEARNING_RATES`
    clip: Annotated[float, Range(0, 1e100)] = 1.0
    val_fraction: Annotated[float, Range(0, 0.5)] = 0.1
    eval_every: Annotated[int, COUNT] = 0  # in steps; 0: about `EVALUATIONS` times per run
    seed: Annotated[int, Range(0, 2**64 - 1)] = 1
    shards: Annotated[int, Range(1, 1024)] = 1  # number of shards per batch: see `charlstm.nn.threads`
    # Steps that each host of an MPI job takes alone before the parameters of all hosts are averaged (local SGD; Stich 2019).
    # 1: the hosts sum their gradients at every step.
    sync_every: Annotated[int, Range(1, 10_000)] = 1

    def __post_init__(self) -> None:
        check(self)

    @property
    def peak_lr(self) -> float:
        """The peak learning rate of the schedule."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr


SETTINGS = tuple(f.name for f in fields(TrainConfig) if f.name != "shards")
"""The settings of a run that a user can give."""

LEARNING_RATES = {"muon": 0.025, "adam": 0.01, "rmsprop": 2e-3, "sgd": 1.0}
"""The default peak learning rate of each optimizer."""

EVALUATIONS = 20
"""The approximate number of evaluations per run when `eval_every` is 0."""


@dataclass(frozen=True)
class Budget:
    """How long to train; at most one field is set.

    With none set, a new run ends at `DEFAULT_MINUTES` or `DEFAULT_EPOCHS`, and a resumed run ends as planned.
    `steps` and `epochs` count from the start of the run, so repeating a command trains no further. `minutes` count from now.
    """

    minutes: Annotated[float | None, MINUTES] = None
    epochs: Annotated[float | None, Range(0, 1e9, open="low")] = None
    steps: Annotated[int | None, COUNT] = None

    def __post_init__(self) -> None:
        given = [f"`{name}`" for name, value in vars(self).items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} can't be combined: give only one of them")
        check(self)

    @property
    def by_time(self) -> bool:
        """Whether the machine's speed decides how far it goes."""
        return self.epochs is None and self.steps is None


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that do not affect its weights."""

    save_every_s: Annotated[float, Range(0)] = 60.0
    preview_every_s: Annotated[float, Range(0)] = 10.0
    preview_temperature: Annotated[float, Range(0, 1000)] = 0.8
    stream_preview: bool = False  # emit a preview piece by piece while it is generated
    threads: Annotated[int, Range(0, 1024)] = 0  # 0: one per core
    cache: str | Path = (
        AUTO  # folder for encoded long texts; "auto": the user's cache folder, "none": keep texts in memory
    )
    on_read: OnRead | None = None  # is told how much of the text has been read

    def __post_init__(self) -> None:
        check(self)

    @property
    def cores(self) -> int:
        """How many threads or processes to use; under a launcher, each rank is one."""
        return blas.cores() if launcher.ranks > 1 else self.threads or blas.cores()


@dataclass(frozen=True)
class TextOptions:
    """How texts are read. A run remembers it, to read its text in the same way again."""

    encoding: str = "utf-8"
    field: str = ""  # of the records in .csv, .tsv, .json and .jsonl files; "": read these files as plain text
    separator: str = "\n"  # ends each record
    unescape: bool = False  # decode HTML entities

    def __post_init__(self) -> None:
        if self.separator != "\n" and not self.field:
            raise UsageError("`separator` separates the records of a `field`: add `field`, or leave out `separator`")


@dataclass(frozen=True)
class TrainRequest:
    """Everything that a user asks of a new run: made once by the command line or the API, read by the session."""

    texts: tuple[str, ...] = ()  # in the form that `sources.find` accepts; empty: the built-in text
    overrides: Mapping[str, Any] = field(default_factory=dict)  # settings of `TrainConfig` that the user gave
    budget: Budget = Budget()
    options: RunOptions = RunOptions()
    folder: Path = RUNS  # checkpoint folder
    name: str | None = None  # of the run; None: the name of the text
    reading: TextOptions = TextOptions()
    if_exists: IfExists = "fail"
    init_from: str = AUTO  # a run whose weights to start from, or `AUTO` or `NONE`
    val_file: str = ""  # the held-out text, as `sources.find` accepts it; "": the end of the text
    unknown: Unknown = "error"  # what to do with characters of `val_file` that the text does not have

    def __post_init__(self) -> None:
        for name in self.overrides:
            if name not in SETTINGS:
                raise UsageError(f"there is no setting {name!r}: {did_you_mean(name, SETTINGS) or ', '.join(SETTINGS)}")
        check(self)
        TrainConfig(**self.overrides)


@dataclass(frozen=True)
class ResumeRequest:
    """Everything that a user asks of a run that exists; its settings and its text are in its file."""

    run: str | None = None  # name or file; None: the newest run
    budget: Budget = Budget()
    options: RunOptions = RunOptions()
    folder: Path = RUNS
    texts: tuple[str, ...] = ()  # where its text is now; empty: where it was
    val_file: str = ""  # where its held-out text is now, if that has a file of its own; "": where it was


def sort_settings(settings: dict[str, Any]) -> tuple[Budget, RunOptions, TextOptions, dict[str, Any]]:
    """Sort keywords by the dataclass whose fields they are; what is left is for `TrainRequest` to judge."""
    given = {name: value for name, value in settings.items() if value is not None}
    classes = (Budget, RunOptions, TextOptions)
    budget, options, reading = ({f.name: given.pop(f.name) for f in fields(c) if f.name in given} for c in classes)
    return Budget(**budget), RunOptions(**options), TextOptions(**reading), given


CONVERSATION_LENGTH = 300
"""Default length of an answer of `sample -i`, short enough for one screen."""


@dataclass(frozen=True)
class SampleConfig:
    """The settings of sampling."""

    temperature: Annotated[float, Range(0, 1000)] = (
        0.8  # below 1 is safer, above 1 is wilder, 0 always picks the likeliest
    )
    top_k: Annotated[int, Range(0)] = 0  # choose among the k likeliest characters; 0: all
    # Choose among the likeliest characters that together have this probability. Defaults: see docs/quality.md.
    top_p: Annotated[float, Range(0, 1, open="low")] = 0.95
    length: Annotated[int, Range(0)] = 1000  # maximum number of characters; 0: no limit
    prompt: str = ""  # text to continue
    stop: str = ""  # stop when this text appears, and leave it out
    lines: Annotated[int, Range(0)] = 0  # stop after this many complete lines, excluding the prompt; 0: no limit
    unknown: Unknown = "error"  # what to do with prompt characters that the model never saw: fail, or skip them
    # Choose among the characters that are at least this many times as likely as the likeliest; 0: all.
    min_p: Annotated[float, Range(0, 1, open="high")] = 0.0
    # Maximum number of characters per line, or of the text if `lines` is 0, with the prompt. Each ends where a line or a
    # sentence ends. It replaces `length`; 0: no limit.
    max_chars: Annotated[int, Range(0)] = 0
    # Write no passage of this many characters that is in the training text, which must still be there; 0: any.
    no_copy: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        check(self)
