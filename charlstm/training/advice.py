"""One sentence on what would improve a run, or on why it did not learn."""

from __future__ import annotations

from collections.abc import Sequence

OVERFIT_NATS, UNDERFIT_NATS = 0.02, 0.02
"""Minimum rise of the held-out loss above its best, or fall over the last four evaluations, to give advice."""


def explain_failure(steps: int, recoveries: int, update_ratio: float, saturated: float, dropout: float) -> str:
    """Explain the most likely reason why a run learned no more than character frequencies, and what to change."""
    if recoveries > 1:
        return f"divergence lowered the learning rate {recoveries} times: try a lower `lr` and `clip` 1"
    if update_ratio < 1e-4:
        return f"each step changed the weights by only {update_ratio:.0e} of their norm: try a higher `lr`, or train longer"
    if saturated > 0.5:
        return f"{saturated:.0%} of the gates are saturated and hardly learn: try a lower `lr`"
    if dropout >= 0.7:
        return f"dropout {dropout:g} leaves too little signal to learn from: try `dropout` 0.3 or less"
    return f"{steps:,} steps were too few, or the text has no pattern beyond its character frequencies: train longer"


def advise(rows: Sequence[tuple[float, float | None]], dropout: float, run: str) -> str:
    """Advise on a run that has learned: whether it overfits or was still improving; empty if neither is clear.

    Args:
        rows: training loss and held-out loss of each evaluation, in nats per character.
        dropout: dropout rate of the run.
        run: the run as one types it after a command.
    """
    judged = [(loss, val) for loss, val in rows if val is not None]
    if len(judged) < 4:
        return ""
    best = min(val for _, val in judged)
    loss, val = judged[-1]
    if val > best + OVERFIT_NATS:
        higher = min(0.6, dropout + 0.2)
        change = f"`dropout` {higher:g}" if higher > dropout else "a smaller `hidden`"
        return f"it overfits: the held-out loss rose from {best:.3f} to {val:.3f} while the training loss fell to {loss:.3f}; try {change}"
    if val == best and judged[-4][1] - val > UNDERFIT_NATS and dropout == 0:
        return f"it was still improving: continue with 'charlstm resume {run} --minutes N'"
    return ""
