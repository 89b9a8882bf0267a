"""Events of a run: plain numbers and strings, which are all that a display sees.

The field names are the keys of the JSON output, so a change breaks the programs that read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple


class HealthQuantity(NamedTuple):
    """A quantity that tells of trouble in training; a field of `Progress` and a column of a run's history."""

    field: str
    label: str
    spec: str  # format specification


HEALTH = (
    HealthQuantity("grad_norm", "gradient", ".2f"),
    HealthQuantity("cell_max", "|c|", ".0f"),
    HealthQuantity("weight_norm", "weights", ".0f"),
    HealthQuantity("update_ratio", "update", ".0e"),
    HealthQuantity("saturated", "saturated", ".0%"),
)


@dataclass(frozen=True)
class Event:
    """Base of all events: the position in the run."""

    step: int
    steps: int | None  # None until a time budget is converted to steps
    epoch: float
    elapsed_s: float  # since the start of this session

    @property
    def name(self) -> str:
        """The event's name in JSON."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()


@dataclass(frozen=True)
class Started(Event):
    """A run is ready to train."""

    run: str
    path: str
    resumed: bool
    text: str
    chars: int
    val_chars: int
    vocabulary: int
    hidden: int
    layers: int
    parameters: int
    memory_bytes: int  # estimated: interpreter, text, weights, buffers, n-gram baseline
    batch: int
    seq: int
    optimizer: str
    lr: float
    clip: float
    uniform_nats: float  # baseline: all characters equally likely
    unigram_nats: float  # baseline: the letter frequencies of the text
    val_nats: float | None
    best_val_nats: float | None
    notes: tuple[str, ...] = ()  # sentences on what was chosen or changed
    val_text: str = ""  # the held-out text, if it has a file of its own; "": the end of the text


@dataclass(frozen=True)
class Planned(Event):
    """A time budget was converted to a number of steps, or the number was corrected."""

    remaining_s: float | None
    note: str


@dataclass(frozen=True)
class Progress(Event):
    """One training step is complete."""

    loss_nats: float
    grad_norm: float
    update_ratio: float
    weight_norm: float
    cell_max: float
    saturated: float
    lr: float
    chars_per_s: float
    remaining_s: float | None


@dataclass(frozen=True)
class Evaluated(Event):
    """The held-out text was evaluated, from a zero state."""

    loss_nats: float  # mean over the steps since the previous evaluation
    val_nats: float
    best_val_nats: float
    ngram_nats: float | None = None  # the best n-gram baseline on the held-out text
    ngram_order: int | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """A piece of generated text; `new` marks the first piece of a new text, which continues `prompt`."""

    text: str
    new: bool
    prompt: str = ""


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is on disk."""

    path: str
    best: bool


@dataclass(frozen=True)
class SaveFailed(Event):
    """A checkpoint can't be written; training continues, and saving is retried."""

    reason: str


@dataclass(frozen=True)
class Diverged(Event):
    """Training diverged; the step was discarded."""

    reason: str
    lr: float


@dataclass(frozen=True)
class Recovered(Event):
    """Training continues from the last good weights, at a lower learning rate."""

    lr: float
    recoveries: int


@dataclass(frozen=True)
class Finished(Event):
    """Training has ended; `path` is the file that `sample` uses."""

    path: str
    loss_nats: float | None
    best_val_nats: float | None
    reason: str  # "done", "early_stop", "nothing to do", or the signal that ended it, as "SIGINT"
    hint: str = ""  # how to improve the run, or why it has not learned
    ngram_nats: float | None = None  # the best n-gram baseline on the held-out text
    ngram_order: int | None = None


def position(event: Event) -> dict[str, Any]:
    """Return the position of an event, for another event at the same position."""
    return {"step": event.step, "steps": event.steps, "epoch": event.epoch, "elapsed_s": event.elapsed_s}
