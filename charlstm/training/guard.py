"""Divergence detection: rejects a step that is non-finite, too large, or worse than the run's recent past.

A jump in the loss alone is not divergence: the text may have become harder. So the guard tests a suspicious step by
asking whether the last good weights do better on the same window. Only if they do, and the gap persists or is extreme,
has the run diverged. The metrics it checks at every step are already known, and the test runs only when needed, so the
guard costs next to nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from charlstm.nn.config import COUNT, METRIC, Range

RECENT = 50
"""Number of losses in the recent past, and minimum number of steps between snapshots."""
MARGIN_NATS, MARGIN_SPREADS = 0.5, 6.0
"""A loss is suspicious if it exceeds the recent level by both this many nats and this many median deviations."""
NOISE_NATS = 8.0
"""Noise of a mean loss over n characters is taken as this many nats over sqrt(n); it widens all margins in nats."""
WORSE_NATS = 0.25
"""The good weights count as better if their loss is lower by more than this many nats."""
EXTREME_NATS = 3.0
PATIENCE = 5
"""The run has diverged after `PATIENCE` consecutive bad steps, or after one that is `EXTREME_NATS` worse than the good
weights."""
SNAPSHOT_SLACK_NATS = 0.25
"""A snapshot is taken only if the recent level is within this many nats of the best one."""
LARGEST_UPDATE = 2.0
"""Maximum norm of an update, as a multiple of the norm of the weights."""
RECOVERY_LR = 0.1
"""Factor applied to the learning rate at each recovery."""
HEALING_STEPS = 50
"""Steps in which the rate returns to normal after the first recovery, whose cause may have been an accident; after a
second recovery it stays low."""
MAX_RECOVERIES = 8


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of one training step."""

    loss_nats: float
    grad_norm: float  # before clipping
    update_ratio: float  # norm of the update divided by the norm of the weights
    weight_norm: float
    cell_max: float  # largest |c|
    saturated: float  # fraction of gates within 1 % of their limits, at the window's last step


@dataclass
class GuardRecord:
    """The guard's memory; saved with the run, so that a resumed run is guarded as if it had never stopped."""

    lr_scale: Annotated[float, Range(0, 1)] = 1.0
    recoveries: Annotated[int, Range(0, MAX_RECOVERIES)] = 0
    good_step: Annotated[int, COUNT] = 0  # step of the last good snapshot
    recent: Annotated[list[float], METRIC] = field(default_factory=list)  # losses of the most recent steps
    level: Annotated[float | None, METRIC] = None  # lowest recent median, raised where the text itself is harder
    spread: Annotated[float, METRIC] = 0.0  # median deviation of the recent losses from their median
    bad: Annotated[int, Range(0, PATIENCE)] = 0  # consecutive bad steps

    def judge(self, m: StepMetrics, chars: int, excess: Callable[[], float]) -> str | None:
        """Return why a step must be rejected, or None if it may be kept.

        Args:
            m: metrics of the step.
            chars: number of characters that its loss is averaged over.
            excess: returns how many nats per character the current weights are worse than the last good ones on the
                same window, both from a zero state and without dropout; called only for a suspicious step.
        """
        for what, value in (
            ("loss", m.loss_nats),
            ("gradient norm", m.grad_norm),
            ("weight norm", m.weight_norm),
            ("cell state", m.cell_max),
            ("update", m.update_ratio),
        ):
            if not math.isfinite(value):
                return f"the {what} is no longer finite"
        if m.update_ratio > LARGEST_UPDATE:
            return f"a step would have changed the weights by {m.update_ratio:.3g} times their norm"
        noise = NOISE_NATS / math.sqrt(chars)
        if self.level is None or m.loss_nats <= self.level + max(MARGIN_NATS + noise, MARGIN_SPREADS * self.spread):
            self.bad = 0
            return None
        worse = excess()
        if worse <= WORSE_NATS + noise:  # the text itself is hard: the good weights do no better
            self.bad = 0
            self.level = max(self.level, statistics.median([*self.recent, m.loss_nats]))
            return None
        self.bad += 1
        if not worse <= EXTREME_NATS + noise or self.bad >= PATIENCE:
            return f"the training loss rose from about {self.level:.2f} to {m.loss_nats:.2f} nats per character"
        return None

    def accept(self, m: StepMetrics, step: int) -> bool:
        """Record an accepted step; return whether the weights are good enough for a snapshot now."""
        self.recent = [*self.recent[-(RECENT - 1) :], m.loss_nats]
        if self.recoveries == 1:
            self.lr_scale = min(1.0, self.lr_scale + 1 / HEALING_STEPS)
        if self.level is None:
            self.level = m.loss_nats
        if step % RECENT or len(self.recent) < RECENT:
            return False
        level = statistics.median(self.recent)
        self.spread = statistics.median(abs(loss - level) for loss in self.recent)
        good = self.bad == 0 and level <= self.level + SNAPSHOT_SLACK_NATS
        self.level = min(self.level, level)
        if good:
            self.good_step = step
        return good

    def recover(self) -> bool:
        """Lower the learning rate and clear the recent losses; return False if no recoveries are left."""
        self.recent, self.bad = [], 0
        if self.recoveries >= MAX_RECOVERIES:
            return False
        self.lr_scale *= RECOVERY_LR
        self.recoveries += 1
        return True
