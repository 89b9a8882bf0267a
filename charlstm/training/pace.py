"""Chooses the settings of a run by the pace of its own first steps, because other programs may use the same cores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

from charlstm.errors import DivergenceError
from charlstm.events import Progress
from charlstm.settings import Budget, TrainConfig
from charlstm.text.corpus import Corpus
from charlstm.text.ids import TextIds
from charlstm.training import loop
from charlstm.training.autoconfig import Choice, choose, seconds_of, work
from charlstm.training.state import Pretrained, TrainState, begin

SHARE, MOST_S = 0.01, 1.0
"""The first steps may take this fraction of the budget, and at most this many seconds."""
OPEN = {"hidden", "layers", "dropout"}
"""Settings that depend on the pace."""


def choose_by_first_steps(
    text: Corpus,
    train_ids: TextIds,
    budget: Budget,
    overrides: dict[str, Any],
    threads: int,
    weights: Pretrained | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Choose the settings that the user left open: see `autoconfig.choose`.

    A first choice rests on a short measurement of matrix products, when the machine may be idle or busy by chance. If the budget
    is a time, a run with these settings takes its first steps, which are thrown away, and the choice is made again by their pace.

    Args:
        text: the text of the run, in its vocabulary.
        train_ids: the part of it to train on.
        budget: how long to train.
        overrides: settings given by the user.
        threads: number of cores to use.
        weights: what training starts from; None: random weights.
        clock: returns seconds.
    """
    sizes = (len(train_ids), len(text.vocabulary))
    least = weights.model.config if weights else None
    choice = choose(*sizes, budget, overrides, threads, least)
    if not budget.by_time or overrides.keys() >= OPEN:
        return choice
    if least:  # the text can be too short for a larger model, whatever the pace
        endless = choose(*sizes, budget, overrides, threads, least, flops=math.inf)
        if all(endless.settings[name] == choice.settings[name] for name in ("hidden", "layers")):
            return choice
    run, _ = begin(text, TrainConfig(**choice.settings), threads)
    seconds = min(MOST_S, SHARE * seconds_of(budget, len(train_ids), weights is not None))
    step_s, config = first_steps(run, train_ids, threads, seconds, clock), run.config
    if step_s is None:
        return choice
    window = config.batch * config.seq
    flops = work(config.layers, config.hidden, sizes[1], window) * window / step_s
    return choose(*sizes, budget, overrides, threads, least, flops)


def first_steps(
    run: TrainState, train_ids: TextIds, threads: int, seconds: float, clock: Callable[[], float]
) -> float | None:
    """Take steps for some seconds, at least one; return the median time of a step, or None if training diverged.

    The first step, which allocates memory, counts only if there are no others.
    """
    times: list[float] = []
    before = clock()
    until = before + seconds
    with closing(loop.train(run, train_ids, train_ids[:0], threads)) as events:  # type: ignore[type-var]
        try:
            for event in events:
                if isinstance(event, Progress):
                    now = clock()
                    times.append(now - before)
                    before = now
                    if now >= until:
                        break
        except DivergenceError:
            return None
    return max(median(times[1:] or times), 1e-9)
