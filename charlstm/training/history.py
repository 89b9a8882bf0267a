"""The history of a run: what was measured at each evaluation, and whose weights it started from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from charlstm.nn.config import COUNT, METRIC, Range


@dataclass(frozen=True)
class HistoryRow:
    """One row of a run's history, added at each evaluation; losses are in nats per character."""

    step: Annotated[int, COUNT]
    loss_nats: Annotated[float, METRIC]  # mean training loss since the previous row
    val_nats: Annotated[float | None, METRIC]
    lr: Annotated[float, METRIC]
    grad_norm: Annotated[float, METRIC]  # mean since the previous row, before clipping
    update_ratio: Annotated[float, METRIC]  # mean since the previous row
    weight_norm: Annotated[float, METRIC]
    cell_max: Annotated[float, METRIC]  # largest |c| since the previous row
    saturated: Annotated[float, Range(0, 1)]  # mean since the previous row


MOST_ROWS = 1000
"""Length at which a history is thinned, so that files stay small and quick to read however often a run is evaluated."""


def thinned(history: list[HistoryRow], best_step: int | None) -> list[HistoryRow]:
    """Return a history; if it is too long, with every two rows of its older half joined into one, except the best.

    A joined row has the step and the held-out loss of the second, and the means and the largest |c| of both.
    """
    while len(history) > MOST_ROWS:
        half = len(history) // 2
        rows: list[HistoryRow] = []
        alone = False  # whether the last of these rows may be joined with the next
        for row in history[:half]:
            if alone and row.step != best_step:
                rows[-1], alone = _joined(rows[-1], row, rows[-2].step if len(rows) > 1 else 0), False
            else:
                rows.append(row)
                alone = row.step != best_step
        history = rows + history[half:]
    return history


def _joined(a: HistoryRow, b: HistoryRow, before: int) -> HistoryRow:
    """Join two rows, the first of which begins after step `before`."""
    share = (a.step - before) / (b.step - before)
    means = {
        name: share * getattr(a, name) + (1 - share) * getattr(b, name)
        for name in ("loss_nats", "grad_norm", "update_ratio", "saturated")
    }
    means["saturated"] = min(1.0, means["saturated"])
    return replace(b, **means, cell_max=max(a.cell_max, b.cell_max))


@dataclass
class MetricSums:
    """Running sums since the last row of the history."""

    steps: Annotated[int, COUNT] = 0
    loss: Annotated[float, METRIC] = 0.0
    grad_norm: Annotated[float, METRIC] = 0.0
    update_ratio: Annotated[float, METRIC] = 0.0
    saturated: Annotated[float, METRIC] = 0.0
    cell_max: Annotated[float, METRIC] = 0.0


@dataclass(frozen=True)
class PretrainedInfo:
    """Where the weights that a run started from came from."""

    name: str  # of the run, or the path of the file
    sha256: str  # of the file
