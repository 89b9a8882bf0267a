"""A run in motion: a generator of events that takes steps, evaluates, and keeps divergence out.

It does no I/O and draws nothing on a screen: whoever drives the generator shows, saves or stops. At every event the state is at rest:
stopped there, saved and resumed, training goes on exactly as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import events, guard
from charlstm.batches import Batches, Window
from charlstm.errors import DivergenceError
from charlstm.evaluation import evaluate
from charlstm.nn import model, optim, parallel
from charlstm.nn.types import Arrays
from charlstm.state import Point, TrainState
from charlstm.workers import Team, move_to_shared_memory

RESET_CHARS = 2048
"""A stream of text starts from a zero state after so many characters at the latest, as a sample does: a state that is carried on and on
drifts away from what the model then knows to begin with."""
NO_GAIN, NO_GAIN_EVALUATIONS, NO_GAIN_NATS = 0.25, 5, 0.01
"""Training ends where the held-out loss had no new best for such a share of the plan and so many evaluations, and is worse by so much."""


def train(
    state: TrainState,
    train_ids: NDArray[Any],
    val_ids: NDArray[Any],
    threads: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[events.Event]:
    """Take steps until the plan's last one, changing `state` in place.

    Args:
        state: the run; at rest whenever this generator has yielded.
        train_ids: the text to learn, ids (chars,).
        val_ids: the held-out text, ids; may be empty.
        threads: how many to use; changes the speed and nothing else.
        clock: seconds; only for what is told, never for what is done.

    Yields:
        Progress after each step, Evaluated after each look at the held-out text, Diverged and Recovered.

    Raises:
        DivergenceError: every recovery was spent. The state is then the last good one.
    """
    config = state.config
    move_to_shared_memory(state.params)
    with (
        parallel.Crew(threads) as crew,
        Team(crew, state.params, state.shape, config.seq, config.batch, config.parts) as team,
    ):
        yield from _train(state, train_ids, val_ids, team, clock)


def _train(
    state: TrainState, train_ids: NDArray[Any], val_ids: NDArray[Any], team: Team, clock: Callable[[], float]
) -> Iterator[events.Event]:
    config = state.config
    batches = Batches(train_ids, config.batch, config.seq, max(1, RESET_CHARS // config.seq))
    started, first, step_s = clock(), state.step, 0.0

    def where() -> dict[str, Any]:
        return {
            "step": state.step,
            "steps": state.plan.last,
            "epoch": epochs(state, batches),
            "elapsed_s": clock() - started,
        }

    while True:
        if evaluation_is_due(state):
            val_nats = (
                _finite(evaluate(state.params, state.shape, val_ids, team.crew, config.parts)) if len(val_ids) else None
            )
            point = _close_tally(state, val_nats)
            if val_nats is not None and state.best_val_nats is not None:
                yield events.Evaluated(
                    **where(), loss_nats=point.loss_nats, val_nats=val_nats, best_val_nats=state.best_val_nats
                )
            if nothing_to_gain(state):
                state.plan.last = state.step
        if state.plan.last is not None and state.step >= state.plan.last:
            return
        before = clock()
        window = batches.next(state.cursor, state.batch_rng)
        lr = lr_now(state)
        with np.errstate(all="ignore"):  # what is not finite is looked for below, and never gets any further
            measures, after = _try_step(state, window, team, lr)
            reason = state.guard.judge(measures, window.inputs.size, partial(_excess, state, window, team))
        if reason is not None:
            goes_on = _recover(state)
            yield events.Diverged(**where(), reason=reason, lr=lr)
            if not goes_on:
                raise DivergenceError(
                    f"training diverged at step {state.step} ({reason}) and {guard.MAX_RECOVERIES} recoveries were spent: "
                    f"try an --lr far below {config.peak_lr:g}, --clip 1, and a --seq below {config.seq}"
                )
            yield events.Recovered(**where(), lr=lr_now(state), recoveries=state.guard.recoveries)
            continue
        state.carried = after
        state.step += 1
        _count(state, measures)
        if state.guard.accept(measures, state.step):
            _copy(state.params, state.good)
        step_s = (clock() - before) if step_s == 0 else 0.95 * step_s + 0.05 * (clock() - before)
        pace = (clock() - started) / (state.step - first)
        yield events.Progress(
            **where(),
            **vars(measures),
            lr=lr,
            chars_per_s=config.batch * config.seq / max(step_s, 1e-9),
            remaining_s=None if state.plan.last is None else (state.plan.last - state.step) * pace,
        )


def nothing_to_gain(state: TrainState) -> bool:
    """Whether the held-out loss has turned for good: it rises while the training loss falls, and the run only learns by heart."""
    plan, here = state.plan, [point for point in state.history if point.step > state.plan.first]
    if plan.last is None or state.best_step is None or state.best_val_nats is None or len(here) <= NO_GAIN_EVALUATIONS:
        return False
    since = [point.val_nats for point in here if point.step > state.best_step and point.val_nats is not None]
    return (
        len(since) >= NO_GAIN_EVALUATIONS
        and here[-1].step - max(plan.first, state.best_step) >= NO_GAIN * (plan.last - plan.first)
        and min(since[-NO_GAIN_EVALUATIONS:]) > state.best_val_nats + NO_GAIN_NATS
    )


def lr_now(state: TrainState) -> float:
    """The learning rate of the next step: the plan's, lowered by what the guard had to."""
    return state.plan.lr(state.step) * state.guard.lr_scale


def epochs(state: TrainState, batches: Batches) -> float:
    """Passes over the text so far."""
    return state.step / batches.windows


# -- one step ---------------------------------------------------------------------------------------------------------


def _try_step(state: TrainState, window: Window, team: Team, lr: float) -> tuple[guard.Measures, model.State]:
    """Loss, gradients, clipping, update: returns what was measured, and the carried state after.

    The parameters are updated only where loss and gradient are finite; if the step must not stand, `_recover` undoes it.
    """
    carried = state.carried.forget(window.fresh)
    seeds = state.dropout_rng.integers(2**63, size=len(team.desks)).tolist() if state.shape.dropout else None
    loss, grads, after = team.loss_and_gradients(window.inputs, window.targets, carried, seeds)
    grad_norm = optim.clip_global_norm(grads, state.config.clip)
    update_norm = 0.0
    if math.isfinite(loss) and math.isfinite(grad_norm):
        update = optim.UPDATES[state.config.optimizer]
        update_norm = update(state.params, grads, state.slots, lr, state.step + 1, team.crew)
    weight_norm = optim.norm(state.params)
    measures = guard.Measures(
        loss_nats=loss,
        grad_norm=grad_norm,
        update_ratio=update_norm / max(weight_norm, 1e-30),
        weight_norm=weight_norm,
        cell_max=float(np.abs(after.c).max()),
        saturated=team.saturated(),
    )
    return measures, after


def _excess(state: TrainState, window: Window, team: Team) -> float:
    """By how many nats the weights are worse on a window than the last good ones, both from a zero state and without dropout."""
    zero = model.State.zero(state.shape, state.config.batch)
    now, good = (team.loss(params, window.inputs, window.targets, zero) for params in (state.params, state.good))
    return now - good


def _recover(state: TrainState) -> bool:
    """Back to the last good weights with a lower rate, empty slots, a zero state, and on with other data; False if it must end."""
    _copy(state.good, state.params)
    for slot in state.slots.values():
        slot.fill(0)
    state.carried = model.State.zero(state.shape, state.config.batch)
    return state.guard.recover()


def _copy(source: Arrays, target: Arrays) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)


def _finite(nats: float) -> float | None:
    """A loss that overflowed on the held-out text is none: nothing that is not finite gets into the history."""
    return nats if math.isfinite(nats) else None


def evaluation_is_due(state: TrainState) -> bool:
    """Whether the run stands at a step to evaluate at and has not done so."""
    plan, done = state.plan, state.history[-1].step if state.history else 0
    if plan.last is None or state.step == done:
        return False
    return state.step >= plan.last or (state.step - plan.first) % plan.eval_every == 0


def _count(state: TrainState, m: guard.Measures) -> None:
    tally = state.tally
    tally.steps += 1
    tally.loss += m.loss_nats
    tally.grad_norm += m.grad_norm
    tally.update_ratio += m.update_ratio
    tally.saturated += m.saturated
    tally.cell_max = max(tally.cell_max, m.cell_max)


def _close_tally(state: TrainState, val_nats: float | None) -> Point:
    """Write a row of the history, note whether it is the best, and begin a new tally."""
    tally, steps = state.tally, max(1, state.tally.steps)
    point = Point(
        step=state.step,
        loss_nats=tally.loss / steps,
        val_nats=val_nats,
        lr=lr_now(state),
        grad_norm=tally.grad_norm / steps,
        update_ratio=tally.update_ratio / steps,
        weight_norm=optim.norm(state.params),
        cell_max=tally.cell_max,
        saturated=tally.saturated / steps,
    )
    state.history.append(point)
    state.tally = type(tally)()
    if val_nats is not None and (state.best_val_nats is None or val_nats < state.best_val_nats):
        state.best_step, state.best_val_nats = state.step, val_nats
    return point
