"""Decoding, from logits to the next character: temperature, truncation, line ends, and sampling by the Gumbel-max trick.

The argmax of log p + G, where G is independent standard Gumbel noise, has the distribution p (Gumbel 1954). Sampling therefore
needs neither probabilities nor their sum, and cannot overflow.

**Temperature leaves lines and sentences as long as they are.** With logits z and p = softmax(z), plain sharpening
softmax(z / T) takes probability away from whatever is not the likeliest character, and a line end seldom is. At T = 0.5 a
line end with p = 0.1 beside a character with p = 0.5 falls to 0.04, at every step, so a line that should have 117
characters gets 300. Here the temperature applies to R alone, the characters that end neither a line nor a sentence:

    s_c = z_c / T + log sum_R exp(z) - log sum_R exp(z / T)   for c in R
    s_c = z_c                                                 for the others

Every ending keeps its probability p, and the others share the rest; exp(s) has the sum of exp(z). Top-k, top-p and min-p
then set unlikely characters to -inf, but never the line end n, whose odds they do not change either:

    s_n = z_n - log sum_{c != n} exp(z_c) + log sum_{c != n} exp(s_c) + boost

A sharpened text also avoids the places where a line could end: it takes the likely path, on which the sentence goes on. So
each line has an account (`LineAccount`). H(m) is the cumulative hazard of the training text's lines, minus the logarithm of
the fraction with at least m characters; A is that of this line, the sum of -log(1 - p_n) over its characters. If it had
less chance to end than it should, the odds of its line end rise:

    boost = GAIN max(0, H(m) - A)

Empty lines do not count, neither in H nor in A: where paragraphs are separated by them, only the model knows which line is to
be empty, and a paragraph would owe the chance that the line before it had.

At temperature 1 without truncation none of this applies: the distribution is exactly the model's. Temperature 0 is the
argmax of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charlstm.nn.types import Array, Ids

COLDEST = 1e-30
"""Lower temperatures, other than 0, are raised to this: dividing by it cannot overflow."""
GAIN = 2.0
"""How fast the odds of a line end rise with the hazard that a line is behind by."""
TAIL = 16.0
"""Hazard per length of the longest line beyond that length: at twice the longest, a line has long ended."""


@dataclass(frozen=True)
class Decoding:
    """How to choose a character."""

    temperature: float = 1.0  # 0: the argmax, the first one of equals
    top_k: int = 0  # keep exactly the k most likely ids, the first ones of equals; 0 keeps all
    top_p: float = (
        1.0  # keep the fewest most likely ids whose probabilities reach this sum (Holtzman et al. 2020), at least one
    )
    min_p: float = 0.0  # keep ids at least this many times as likely as the likeliest (Nguyen et al. 2024)
    line_end: int | None = None  # id of the line end
    ends: tuple[int, ...] = ()  # ids of the characters that end a sentence

    @property
    def truncates(self) -> bool:
        """Whether some ids may be excluded."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def exact(self) -> bool:
        """Whether the distribution is the model's."""
        return self.temperature == 1 and not self.truncates


def sample(logits: Array, noise: Array, how: Decoding, lines: LineAccount | None = None) -> Ids:
    """Sample one id from each column of logits.

    Args:
        logits: (V, N).
        noise: (V, N) standard Gumbel noise.
        how: temperature and truncation.
        lines: the accounts of the N lines, which this updates.

    Returns:
        (N,) ids.
    """
    if how.temperature == 0:
        greedy: Ids = logits.argmax(axis=0)
        return greedy
    if how.exact:
        scores = logits.astype(np.float64) + noise
    else:
        scores, log_odds = log_scores(logits, how, None if lines is None else lines.boost())
        scores += noise
    ids: Ids = scores.argmax(axis=0)
    if lines is not None and not how.exact:
        lines.advance(log_odds, ids == how.line_end)
    return ids


def log_scores(logits: Array, how: Decoding, boost: Array | None = None) -> tuple[Array, Array]:
    """Apply the formulas above; return s, (V, N), whose softmax is the distribution, and the log odds of a line end, (N,).

    The log odds are -inf without a line end.
    """
    z = logits.astype(np.float64)
    kept = [*how.ends] if how.line_end is None else [*how.ends, how.line_end]
    scores = z / max(how.temperature, COLDEST)
    if len(kept) < len(z):
        scores[kept] = -np.inf
        others = z.copy()
        others[kept] = -np.inf
        scores -= _log_sum(scores)  # first, because at the coldest temperature it is too large to add anything to
        scores += _log_sum(others)
        scores[kept] = z[kept]
    else:
        scores = z.copy()
    if how.line_end is None or len(z) == 1:
        if how.truncates:
            filter_logits(scores, how.top_k, how.top_p, how.min_p)
        return scores, np.full(z.shape[1], -np.inf)
    scores[how.line_end] = -np.inf
    log_odds = z[how.line_end] - _log_sum(scores)
    if boost is not None:
        log_odds += boost
    if how.truncates:
        filter_logits(scores, how.top_k, how.top_p, how.min_p)
    scores[how.line_end] = log_odds + _log_sum(scores)
    return scores, log_odds


def _log_sum(scores: Array) -> Array:
    """Return the logarithm of the sum of exp(scores) over each column, (N,)."""
    top = scores.max(axis=0)
    total: Array = top + np.log(np.exp(np.maximum(scores - top, -700.0)).sum(axis=0))  # exp(-700) does not underflow
    return total


def filter_logits(scores: Array, top_k: int, top_p: float, min_p: float = 0.0) -> None:
    """Apply top-k, top-p and min-p, in this order, to scores (V, N): set all others to -inf, **in place**."""
    if 0 < top_k < len(scores) or top_p < 1:
        order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=0)
        if 0 < top_k < len(ranked):
            ranked[top_k:] = -np.inf
        if top_p < 1:
            p = np.exp(np.maximum(ranked - ranked[0], -700.0)) * np.isfinite(ranked)
            p /= p.sum(axis=0)
            before = np.cumsum(p, axis=0) - p
            before[0] = 0
            ranked[before >= top_p] = -np.inf
        np.put_along_axis(scores, order, ranked, axis=0)
    if min_p > 0:
        scores[scores < scores.max(axis=0) + np.log(min_p)] = -np.inf


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

    def __call__(self, chars: Array) -> Array:
        """Return H of each length."""
        beyond: Array = np.maximum(chars - self.knots[-1], 0) * self.slope
        beyond += np.interp(chars, self.knots, self.hazard)
        return beyond


class LineAccount:
    """For each of N lines being written: how long it is, and how much chance to end it has had."""

    def __init__(self, hazard: LineHazard, N: int, chars: int = 0) -> None:
        """Open the accounts of N lines that begin with this many characters of a prompt."""
        self.hazard = hazard
        self.chars = np.full(N, float(chars))
        self.spent = hazard(self.chars)

    def boost(self) -> Array:
        """Return what to add to the log odds of a line end, (N,)."""
        behind: Array = np.maximum(self.hazard(self.chars) - self.spent, 0)
        return GAIN * behind

    def advance(self, log_odds: Array, ended: Array) -> None:
        """Record the log odds of a line end that each line had, and which lines ended."""
        self.spent += np.where(self.chars > 0, np.logaddexp(0, log_odds), 0)  # -log(1 - p)
        self.chars += 1
        self.chars[ended] = 0
        self.spent[ended] = 0
