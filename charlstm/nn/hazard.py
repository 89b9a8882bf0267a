"""How much chance to end the lines of a text had at every length, and how much the lines being written have had.

`charlstm.nn.decoding` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from charlstm.nn.types import Array, Ids

GAIN = 2.0
"""How fast the odds of a line end rise with the hazard that a line is behind by."""
TAIL = 16.0
"""Hazard per length of the longest line beyond that length: at twice the longest, a line has long ended."""
TABLE = 1 << 12
"""H of the lengths below this is looked up."""


class LineHazard:
    """H, the cumulative hazard of the lengths of lines: a fraction exp(-H(m)) of the lines has at least m characters."""

    def __init__(self, lengths: Sequence[int]) -> None:
        """Set H from evenly spaced quantiles of the lengths, which include the longest; one must not be 0."""
        lengths = [chars for chars in lengths if chars > 0]
        n = max(1, len(lengths) - 1)
        survival = np.append(
            1 - np.arange(len(lengths) - 1) / n, 0.5 / n
        )  # half a line of n is longer than the longest
        knots, first = np.unique(lengths, return_index=True)
        self.knots, self.hazard = knots.astype(np.float64), -np.log(survival[first])
        self.slope = TAIL / lengths[-1]
        self.table = self._compute(np.arange(min(lengths[-1], TABLE)))

    def __call__(self, chars: Ids) -> Array:
        """Return H of each length."""
        try:
            hazard: Array = self.table[chars]
        except IndexError:
            return self._compute(chars)
        return hazard

    def _compute(self, chars: Ids) -> Array:
        beyond: Array = np.maximum(chars - self.knots[-1], 0) * self.slope
        beyond += np.interp(chars, self.knots, self.hazard)
        return beyond


class LineAccount:
    """For each of N lines being written: how long it is, and how much chance to end it has had."""

    def __init__(self, hazard: LineHazard, N: int, chars: int = 0) -> None:
        """Open the accounts of N lines that begin with this many characters of a prompt."""
        self.hazard = hazard
        self.chars = np.full(N, chars)
        self.spent = hazard(self.chars)

    def boost(self) -> Array:
        """Return what to add to the log odds of a line end, (N,)."""
        behind: Array = np.maximum(self.hazard(self.chars) - self.spent, 0)
        return GAIN * behind

    def boost_of_one(self) -> float:
        """Return what `boost` does for a single line."""
        table, chars = self.hazard.table, self.chars.item()
        hazard: float = table.item(chars) if chars < len(table) else self.hazard(self.chars).item()
        behind: float = max(0.0, hazard - self.spent.item())
        return GAIN * behind

    def advance_one(self, log_odds: float, ended: bool) -> None:
        """Do what `advance` does for a single line."""
        if ended:
            self.chars[0], self.spent[0] = 0, 0
            return
        if self.chars.item() > 0:
            self.spent[0] += max(0.0, log_odds) + math.log1p(math.exp(-abs(log_odds)))
        self.chars[0] += 1

    def advance(self, log_odds: Array, ended: Array) -> None:
        """Record the log odds of a line end that each line had, and which lines ended."""
        self.spent += np.logaddexp(0, log_odds) * (self.chars > 0)  # -log(1 - p)
        self.chars += 1
        if ended.any():
            self.chars[ended] = 0
            self.spent[ended] = 0
