"""The learning rate of every step, and how often to evaluate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from charlstm.nn.config import COUNT, METRIC
from charlstm.settings import EVALUATIONS, MINUTES

WARMUP_STEPS = 50
FINAL_LR = 0.5
"""Final learning rate of the schedule, as a fraction of its peak. It is high, because the average of the weights has less noise
than they have."""
EVALUATION_SHARE = 0.05
"""Approximate maximum fraction of the training time that evaluations take."""


@dataclass
class Schedule:
    """A learning-rate schedule and its length in steps; extending a run starts a new one."""

    first: Annotated[int, COUNT]  # step at which it starts
    last: Annotated[int | None, COUNT]  # step at which it ends; None until a time budget is converted to steps
    peak_lr: Annotated[float, METRIC]
    eval_every: Annotated[int, COUNT] = 0  # steps; 0 until `last` is known
    minutes: Annotated[float | None, MINUTES] = None  # the time budget that it was made for

    @property
    def length(self) -> float:
        """Number of steps; infinite until `last` is known."""
        return math.inf if self.last is None else self.last - self.first

    @property
    def warmup(self) -> float:
        """Number of steps of the warm-up: a tenth of the schedule, and at most `WARMUP_STEPS`."""
        return min(WARMUP_STEPS, self.length / 10)

    def lr(self, step: int) -> float:
        """Return the learning rate after `step` steps: linear warm-up, then cosine decay (Loshchilov & Hutter 2017).

        The decay ends at `FINAL_LR` times the peak.
        """
        done, total, warmup = step - self.first, self.length, self.warmup
        if done < warmup:
            return self.peak_lr * (done + 1) / (warmup + 1)
        progress = min(1.0, (done - warmup) / max(1, total - warmup))
        return self.peak_lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress)))

    def end(self, last: int, eval_every: int, chars_per_step: int, val_chars: int) -> None:
        """Set the last step and, if `eval_every` is 0, an evaluation interval that respects `EVALUATION_SHARE`.

        A forward pass is assumed to take a third of the time of a training step.
        """
        self.last = last
        steps = max(1, last - self.first)
        affordable = 3 * EVALUATION_SHARE * steps * chars_per_step / max(1, val_chars)
        evaluations = min(EVALUATIONS, max(2, int(affordable)))
        self.eval_every = eval_every or max(1, math.ceil(steps / evaluations))
