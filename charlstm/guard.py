"""Keeps divergence out: judges every step before it stands, by what is finite, by its size, and by the run's own recent past.

A loss that jumps is not yet a reason: the text may have become harder. So a step that looks bad is put to the test: had the last good
weights done better on this very window? Only then, and only if it lasts or is extreme, the run has diverged. What it takes is known at
every step, and the test is made when it is needed, so that watching costs next to nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

RECENT = 50
"""Losses that make up the recent past; a snapshot may be taken once in so many steps."""
MARGIN_NATS, MARGIN_SPREADS = 0.5, 6.0
"""A loss looks bad above the level of the recent past by this much, and by so many median deviations."""
NOISE_NATS = 8.0
"""The mean over n characters is known to this over sqrt(n) at best: all margins in nats are widened by so much."""
WORSE_NATS = 0.25
"""The good weights did better if they are below the loss by this much."""
EXTREME_NATS = 3.0
PATIENCE = 5
"""So many bad steps in a row are divergence, or one that is worse than the good weights by so much."""
SNAPSHOT_SLACK_NATS = 0.25
"""A snapshot is good if the level is not worse than the best one by more than this."""
LARGEST_UPDATE = 2.0
"""A step may not change the weights by more than so many times their own norm."""
RECOVERY_LR = 0.1
"""What the rate is multiplied with at each recovery; but the first may have been an accident, so after that one it comes back …"""
HEALING_STEPS = 50
"""… within so many steps."""
MAX_RECOVERIES = 8
OVERFIT_NATS, UNDERFIT_NATS = 0.02, 0.02
"""What the held-out loss must have risen above its best, or fallen over the last four evaluations, to be worth a word."""


@dataclass(frozen=True)
class Measures:
    """What is measured at every step."""

    loss_nats: float
    grad_norm: float  # before clipping
    update_ratio: float  # norm of the change of the weights, in norms of the weights
    weight_norm: float
    cell_max: float  # largest |c|
    saturated: float  # share of gates within 1 % of their ends, at the window's last step


def why_not_learned(steps: int, recoveries: int, update_ratio: float, saturated: float, dropout: float) -> str:
    """What most likely kept a run from learning more than the letter frequencies, and what to change; plain words."""
    if recoveries > 1:
        return f"the rate had to be lowered {recoveries} times: take a lower --lr, and --clip 1"
    if update_ratio < 1e-4:
        return f"each step changed the weights by {update_ratio:.0e} of their size only: take a higher --lr or train longer"
    if saturated > 0.5:
        return f"{saturated:.0%} of the gates are saturated and hardly learn: take a lower --lr"
    if dropout >= 0.7:
        return f"dropout {dropout:g} leaves too little to learn from: take --dropout 0.3 or less"
    return f"{steps:,} steps were too few for this text, or it holds no pattern beyond its letters: train longer"


def what_next(rows: Sequence[tuple[float, float | None]], dropout: float, name: str) -> str:
    """Whether a run that learned learns by heart now, or was still getting better, and what to do; empty where neither is clear.

    Args:
        rows: training loss and held-out loss of each evaluation.
        dropout: the run's.
        name: the run's.
    """
    judged = [(loss, val) for loss, val in rows if val is not None]
    if len(judged) < 4:
        return ""
    best = min(val for _, val in judged)
    loss, val = judged[-1]
    if val > best + OVERFIT_NATS:
        more = min(0.6, dropout + 0.2)
        change = f"--dropout {more:g}" if more > dropout else "a smaller --hidden"
        return f"it overfits: the held-out loss rose from {best:.3f} to {val:.3f} while the training loss fell to {loss:.3f}; take {change}"
    if val == best and judged[-4][1] - val > UNDERFIT_NATS and dropout == 0:
        return f"it was still getting better: 'charlstm resume {name} --minutes …' goes on"
    return ""


@dataclass
class GuardRecord:
    """What the guard must remember; part of a run's state, so that a resumed run is guarded as one that never stopped."""

    lr_scale: float = 1.0
    recoveries: int = 0
    good_step: int = 0  # when the last good snapshot was taken
    recent: list[float] = field(default_factory=list)  # losses of the last steps
    level: float | None = None  # the first loss, then the lowest median of the recent past
    spread: float = 0.0  # median deviation from it
    bad: int = 0  # bad steps in a row

    def judge(self, m: Measures, chars: int, excess: Callable[[], float]) -> str | None:
        """Why a step must not stand; None if it may.

        Args:
            m: what the step measured.
            chars: characters that its loss is the mean of.
            excess: computes by how many nats the weights are worse than the last good ones on the same window, both from a zero
                state and without dropout; called only where it matters.
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
            return f"a step would have changed the weights by {m.update_ratio:.3g} times their own norm"
        noise = NOISE_NATS / math.sqrt(chars)
        if self.level is None or m.loss_nats <= self.level + max(MARGIN_NATS + noise, MARGIN_SPREADS * self.spread):
            self.bad = 0
            return None
        worse = excess()
        if worse <= WORSE_NATS + noise:  # the text is hard here, for the good weights too
            self.bad = 0
            self.level = max(self.level, statistics.median([*self.recent, m.loss_nats]))
            return None
        self.bad += 1
        if not worse <= EXTREME_NATS + noise or self.bad >= PATIENCE:
            return f"the loss rose to {m.loss_nats:.2f} nats, {worse:.2f} worse than the last good weights on the same text"
        return None

    def accept(self, m: Measures, step: int) -> bool:
        """Take note of a step that stands; returns whether the weights are good enough for a snapshot now."""
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
        """Lower the rate and forget the bad past; returns False once every recovery is spent."""
        self.recent, self.bad = [], 0
        if self.recoveries >= MAX_RECOVERIES:
            return False
        self.lr_scale *= RECOVERY_LR
        self.recoveries += 1
        return True
