"""All settings of training and sampling, with their defaults and limits; needs no NumPy.

The command line reads them before NumPy is imported. This keeps ``--help`` fast, and lets ``--threads`` take effect: BLAS
fixes its number of threads when NumPy loads. `charlstm.nn.config` defines the shape of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from charlstm.errors import UsageError, did_you_mean

Optimizer = Literal["muon", "adam", "rmsprop", "sgd"]
Unknown = Literal["error", "skip"]
IfExists = Literal["fail", "resume", "overwrite"]
DisplayKind = Literal["auto", "live", "bar", "lines", "json", "none"]

DEFAULT_MINUTES = 5.0
"""Default time budget in minutes; `DEFAULT_PASSES` can end a run sooner."""
DEFAULT_PASSES = 60
"""Default limit in epochs, for a run that has no budget."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings that define a run. They are saved with it, and `resume` does not change them."""

    hidden: int = 256
    layers: int = 1
    batch: int = 32
    seq: int = 64
    optimizer: Optimizer = "muon"
    lr: float | None = None  # None: the optimizer's entry in `LEARNING_RATES`
    clip: float = 1.0
    dropout: float = 0.0
    val_fraction: float = 0.1
    eval_every: int = 0  # in steps; 0: about `EVALUATIONS` times per run
    seed: int = 1
    shards: int = 1  # number of shards per batch: see `charlstm.nn.parallel`

    def __post_init__(self) -> None:
        require("--hidden", self.hidden, 1, 16384)
        require("--layers", self.layers, 1, 64)
        require("--batch", self.batch, 1, 65536)
        require("--seq", self.seq, 1, 65536)
        require_one_of("--optimizer", self.optimizer, get_args(Optimizer))
        if self.lr is not None:
            require("--lr", self.lr, 0, None, above=True)
        require("--clip", self.clip, 0, None)
        require("--dropout", self.dropout, 0, 1, below=True)
        require("--val-fraction", self.val_fraction, 0, 0.5)
        require("--eval-every", self.eval_every, 0, None)
        require("--seed", self.seed, 0, None)
        require("parts", self.shards, 1, None)

    @property
    def peak_lr(self) -> float:
        """The peak learning rate of the schedule."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr


LEARNING_RATES = {"muon": 0.025, "adam": 0.01, "rmsprop": 2e-3, "sgd": 1.0}
"""The default peak learning rate of each optimizer."""

EVALUATIONS = 20
"""The approximate number of evaluations per run when `eval_every` is 0."""


@dataclass(frozen=True)
class Budget:
    """How long to train; at most one field is set.

    With none set, a new run ends at `DEFAULT_MINUTES` or `DEFAULT_PASSES`, and a resumed run ends as planned.
    `steps` and `epochs` count from the start of the run, so repeating a command trains no further. `minutes` count from now.
    """

    minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("minutes", "epochs", "steps") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} can't be combined: give only one of them")
        for name in given:
            require(name, getattr(self, name[2:]), 0, None, above=name != "--steps")


@dataclass(frozen=True)
class RunOptions:
    """The options of a run that do not affect its weights."""

    save_every_s: float = 60.0
    preview_every_s: float = 10.0
    preview_temperature: float = 0.8
    stream_preview: bool = False  # emit a preview piece by piece while it is generated
    threads: int = 1

    def __post_init__(self) -> None:
        require("--save-every", self.save_every_s, 0, None)
        require("--preview-every", self.preview_every_s, 0, None)


CONVERSATION_LENGTH = 300
"""Default length of an answer of `sample -i`, short enough for one screen."""


@dataclass(frozen=True)
class SampleConfig:
    """The settings of sampling."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    length: int = 1000
    prompt: str = ""
    stop: str = ""
    lines: int = 0
    unknown: Unknown = "error"

    def __post_init__(self) -> None:
        require("--temp", self.temperature, 0, 1000)
        require("--top-k", self.top_k, 0, None)
        require("--top-p", self.top_p, 0, 1, above=True)
        require("--length", self.length, 0, None)
        require("--lines", self.lines, 0, None)
        require_one_of("--unknown", self.unknown, get_args(Unknown))


def require(
    option: str, value: float, low: float, high: float | None, *, above: bool = False, below: bool = False
) -> None:
    """Raise a UsageError for a number outside [low, high]; `above` and `below` exclude the bound itself."""
    in_range = math.isfinite(value) and (low < value if above else low <= value)
    if high is not None:
        in_range = in_range and (value < high if below else value <= high)
    if not in_range:
        floor = f"above {low:g}" if above else f"at least {low:g}"
        roof = "" if high is None else f" and {'below' if below else 'at most'} {high:g}"
        raise UsageError(f"{option} {value!r} is out of range: it must be {floor}{roof}")


def require_one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a UsageError for a value that is not among those allowed."""
    if value not in allowed:
        choices = ", ".join(allowed)
        near = did_you_mean(value, allowed)
        raise UsageError(
            f"{option} {value!r} is unknown" + (f" ({choices}): {near}" if near else f": use one of {choices}")
        )


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
