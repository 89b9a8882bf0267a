"""Decoding, from logits to the next character: temperature, truncation, line ends, runs, and sampling by the Gumbel-max trick.

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

**Runs of a character are as long as the model has them.** After nineteen spaces of an indented title, the next character is
a space with p = 0.96; sharpened, or as all that top-p keeps, it would be one for ever. So a character other than a letter or
digit keeps its probability of following itself: as for a line end, its odds do not change.

At temperature 1 without truncation none of this applies: the distribution is exactly the model's. Temperature 0 is the
argmax of the logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from charlstm.nn.hazard import LineAccount
from charlstm.nn.types import Array, Ids

COLDEST = 1e-30
"""Lower temperatures, other than 0, are raised to this: dividing by it cannot overflow."""
LARGEST_LOG = 600.0
"""Larger logarithms of odds are lowered to this: their exponential cannot overflow, and nothing else is as likely."""


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
    runs: frozenset[int] = frozenset()  # ids of the characters that keep their probability of following themselves

    @cached_property
    def sentence_ends(self) -> Ids:
        """The ids in `ends`, as NumPy needs them."""
        return np.array(self.ends, np.intp)

    @cached_property
    def truncates(self) -> bool:
        """Whether some ids may be excluded."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @cached_property
    def exact(self) -> bool:
        """Whether the distribution is the model's."""
        return self.temperature == 1 and not self.truncates


def sample(
    logits: Array, noise: Array, how: Decoding, lines: LineAccount | None = None, before: Ids | None = None
) -> Ids:
    """Sample one id from each column of logits.

    Args:
        logits: (V, N).
        noise: (V, N) standard Gumbel noise.
        how: temperature and truncation.
        lines: the accounts of the N lines, which this updates.
        before: (N,) the ids that come before; without them a run of one character is treated as any other text.

    Returns:
        (N,) ids.
    """
    N = logits.shape[1]
    if how.temperature == 0:
        greedy: Ids = logits.argmax(axis=0)
        return greedy
    if N == 1:
        return np.array([_sample_one(logits[:, 0], noise[:, 0], how, lines, None if before is None else before.item())])
    if how.exact:
        scores = np.add(logits, noise, dtype=np.float64)
    else:
        scores, log_odds = log_scores(logits, how, None if lines is None else lines.boost(), before)
        scores += noise
    ids: Ids = scores.argmax(axis=0)
    if lines is not None and not how.exact:
        lines.advance(log_odds, ids == how.line_end)
    return ids


def _sample_one(logits: Array, noise: Array, how: Decoding, lines: LineAccount | None, before: int | None) -> int:
    """Do what `sample` does for a single text, from logits (V,) and noise (V,).

    With so few numbers, most of the time goes into calls of NumPy. The argmax of s + G is that of exp(s) exp(G), which needs fewer
    calls, and Python computes what concerns one character. `log_scores` is its oracle.
    """
    if how.exact:
        return int(np.add(logits, noise, dtype=np.float64).argmax())
    z = logits.astype(np.float64)
    end = how.line_end if len(z) > 1 else None
    run = before if before in how.runs and len(z) > 2 else None
    z_end = z_run = -math.inf
    if end is not None:
        z_end, z[end] = z.item(end), -math.inf
    if run is not None:
        z_run, z[run] = z.item(run), -math.inf
    top = z.item(z.argmax())
    weights = np.exp(np.subtract(z, top, out=z))
    total = np.add.reduce(weights).item()
    run_odds = math.exp(min(z_run - top, LARGEST_LOG)) / total
    log_odds = z_end - top - math.log(total) - math.log1p(run_odds)
    if lines is not None:
        log_odds += lines.boost_of_one()
    if how.temperature != 1:
        _sharpen(z, weights, how)
    if how.truncates:
        filter_weights(weights, how.top_k, how.top_p, how.min_p)
    if run is not None or end is not None:
        total = np.add.reduce(weights).item()
    if run is not None:
        weights[run] = run_odds * total
    if end is not None:
        weights[end] = math.exp(min(log_odds, LARGEST_LOG)) * total * (1 + run_odds)
    weights *= np.exp(noise, dtype=np.float64)
    chosen = int(weights.argmax())
    if lines is not None:
        lines.advance_one(log_odds, chosen == end)
    return chosen


def log_scores(
    logits: Array, how: Decoding, boost: Array | None = None, before: Ids | None = None
) -> tuple[Array, Array]:
    """Apply the formulas above; return s, whose softmax is the distribution, and the log odds of a line end.

    The weights are exp(s), without the line end and what continues a run, and divided by the largest exp(z) of the others; s is
    shifted accordingly. It is -inf for excluded ids, and where a weight is too small for a float. The log odds are -inf without
    a line end.

    Args:
        logits: (V, N).
        how: temperature and truncation.
        boost: (N,), added to the log odds of a line end.
        before: (N,) the ids that come before.

    Returns:
        (V, N) and (N,).
    """
    z = logits.astype(np.float64)
    end = how.line_end if len(z) > 1 else None
    if end is not None:
        z_end = z[end].copy()
        z[end] = -np.inf
    run, of = _runs(before, how) if before is not None and len(z) > 2 else (None, None)
    if run is not None:
        z_run = z[run]
        z[run] = -np.inf
    top = np.maximum.reduce(z)
    weights = np.exp(z - top)
    log_sum = np.log(np.add.reduce(weights))
    if run is not None:
        run_odds = np.full(len(top), -np.inf)
        run_odds[of] = z_run - top[of] - log_sum[of]
        log_sum = log_sum + np.logaddexp(0, run_odds)
    if end is None:
        log_odds = np.full(len(top), -np.inf)
    else:
        log_odds = z_end - top - log_sum
        if boost is not None:
            log_odds += boost
    if how.temperature != 1:
        _sharpen(z, weights, how)
    if how.truncates:
        filter_weights(weights, how.top_k, how.top_p, how.min_p)
    with np.errstate(divide="ignore"):
        scores = np.log(weights)
    log_sum = np.log(np.add.reduce(weights))
    if run is not None:
        scores[run] = run_odds[of] + log_sum[of]
        log_sum = log_sum + np.logaddexp(0, run_odds)
    if end is not None:
        scores[end] = log_odds + log_sum
    return scores, log_odds


def _runs(before: Ids, how: Decoding) -> tuple[Any, Any]:
    """Return where logits (V, N) have the characters that continue a run, and in which columns; None without any."""
    columns = [k for k, character in enumerate(before.tolist()) if character in how.runs]
    return ((before[columns], columns), columns) if columns else (None, None)


def _sharpen(z: Array, weights: Array, how: Decoding) -> None:
    """Apply the temperature to weights exp(z) (V, N) or (V,), **in place**, but those of `how.ends`; excluded ids have z = -inf."""
    if len(how.ends) + (how.line_end is not None) + 1 >= len(z):
        return  # there are no two others
    ends = how.sentence_ends
    kept = weights[ends]
    weights[ends], z[ends] = 0, -np.inf
    sharpened = np.exp((z - np.maximum.reduce(z)) / max(how.temperature, COLDEST))
    np.multiply(sharpened, np.add.reduce(weights) / np.add.reduce(sharpened), out=weights)
    weights[ends] = kept


def filter_weights(weights: Array, top_k: int, top_p: float, min_p: float = 0.0) -> None:
    """Apply top-k, top-p and min-p, in this order, to weights (V, N) or (V,): set all others to 0, **in place**."""
    V = len(weights)
    if 0 < top_k < V or top_p < 1:
        ranked = weights.copy()
        ranked.sort(axis=0)
        ranked = ranked[::-1][: top_k or V]
        up_to = np.add.accumulate(ranked)
        within = up_to - ranked < top_p * up_to[-1] if top_p < 1 else ranked >= 0  # the first one always is
        count = np.add.reduce(within)
        smallest = ranked[count - 1] if weights.ndim == 1 else ranked[count - 1, np.arange(weights.shape[1])]
        kept = weights >= smallest
        if np.count_nonzero(kept) > np.count_nonzero(within):  # of equals, only the first ones are kept
            kept = _first(weights, count)
        weights *= kept
    if min_p > 0:
        weights *= weights >= min_p * np.maximum.reduce(weights)


def _first(weights: Array, count: Any) -> Array:
    """Return a mask of the `count` largest weights of each column, the first ones of equals."""
    ranks = np.argsort(np.argsort(-weights, axis=0, kind="stable"), axis=0)
    mask: Array = ranks < count
    return mask
