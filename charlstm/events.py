"""What a run has to say: plain numbers and strings, for displays that know nothing else.

The names of the fields are those of the JSON that programs read, so they are fixed.
"""

from __future__ import annotations

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
    """Base of all events: where the run stands."""

    step: int
    steps: int | None  # None until a time budget has become a number of steps
    epoch: float
    elapsed_s: float  # of this sitting

    @property
    def name(self) -> str:
        """The event's name in JSON."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Started(Event):
    """A run is set up and about to train."""

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
    memory_bytes: int  # planned: interpreter, text, weights, buffers
    batch: int
    seq: int
    optimizer: str
    lr: float
    clip: float
    chance_nats: float  # every character as likely as any other
    letters_nats: float  # the text's own letter frequencies
    val_nats: float | None
    best_val_nats: float | None
    notes: tuple[str, ...] = ()  # what was chosen or changed, in words


@dataclass(frozen=True)
class Planned(Event):
    """The time budget became a number of steps, or none was needed."""

    remaining_s: float | None
    note: str


@dataclass(frozen=True)
class Progress(Event):
    """One training step was taken."""

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
    """The held-out text was read from a zero state to its end."""

    loss_nats: float  # mean over the steps since the evaluation before
    val_nats: float
    best_val_nats: float
    ngram_nats: float | None = None  # the best that counting does on the held-out text
    ngram_order: int | None = None


@dataclass(frozen=True)
class Sampled(Event):
    """A piece of text that the model wrote; `fresh` where it begins anew, and then after this prompt."""

    text: str
    fresh: bool
    prompt: str = ""


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint is on disk."""

    path: str
    best: bool


@dataclass(frozen=True)
class Unsaved(Event):
    """A checkpoint could not be written; training goes on, and it is tried again."""

    reason: str


@dataclass(frozen=True)
class Diverged(Event):
    """Training was about to break, or broke; nothing of it was kept."""

    reason: str
    lr: float


@dataclass(frozen=True)
class Recovered(Event):
    """Training went back to the last good snapshot and goes on from there."""

    lr: float
    recoveries: int


@dataclass(frozen=True)
class Finished(Event):
    """Training is over; `path` is the file that `sample` will use."""

    path: str
    loss_nats: float | None
    best_val_nats: float | None
    reason: str  # "done", "no gain", "SIGINT", "SIGTERM", "nothing to do"
    hint: str = ""  # what would make it better, or why it has not learned
    ngram_nats: float | None = None  # the best that counting does on the held-out text
    ngram_order: int | None = None


def place(event: Event) -> dict[str, Any]:
    """Where an event was, for another one that belongs to the same moment."""
    return {"step": event.step, "steps": event.steps, "epoch": event.epoch, "elapsed_s": event.elapsed_s}
