"""The training loop: a generator of events that takes steps, evaluates, and recovers from divergence.

It does no I/O and draws nothing on screen: the caller that drives the generator shows events, saves, or stops. The
state is consistent at every event, so a run that is stopped there, saved and resumed continues bit-identically.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from charlstm import events
from charlstm.errors import DivergenceError
from charlstm.nn import model, optim
from charlstm.nn.types import Arrays
from charlstm.text.batches import Batches, Window, reset_every
from charlstm.text.ids import TextIds
from charlstm.training import guard
from charlstm.training.engine import Engine, open_engine
from charlstm.training.history import HistoryRow, thinned
from charlstm.training.state import MOST_START_SHARE, TrainState

EARLY_STOP_SHARE, EARLY_STOP_EVALUATIONS, EARLY_STOP_NATS = 0.25, 5, 0.01
"""Early stopping: no new best held-out loss for this fraction of the schedule and this many evaluations, the latest of
which are all worse than the best by this many nats per character."""
SHARE_STEP = 0.1
"""Difference between the shares of pretrained weights that are tried."""


def train(
    state: TrainState,
    train_ids: TextIds,
    val_ids: TextIds,
    threads: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[events.Event]:
    """Train until the last planned step, updating `state` in place.

    Args:
        state: the run; consistent whenever this generator has yielded.
        train_ids: training text as ids, (chars,).
        val_ids: held-out text as ids, (chars,); may be empty.
        threads: number of threads; affects speed only.
        clock: returns seconds, of which events report `elapsed_s`; never used for decisions.

    Yields:
        Progress after each step, Evaluated after each evaluation on the held-out text, Diverged, and Recovered.

    Raises:
        DivergenceError: training diverged after the last recovery; `state` then holds the last good weights.
    """
    with open_engine(state, len(val_ids), threads) as engine:
        yield from _train(state, train_ids, val_ids, engine, clock)


def _train(
    state: TrainState, train_ids: TextIds, val_ids: TextIds, engine: Engine, clock: Callable[[], float]
) -> Iterator[events.Event]:
    config = state.config
    batches = Batches(train_ids, config.batch, config.seq, reset_every(config.seq))
    started, first, step_s = clock(), state.step, 0.0

    def position() -> dict[str, Any]:
        return {
            "step": state.step,
            "steps": state.schedule.last,
            "epoch": epochs(state, batches),
            "elapsed_s": clock(),
        }

    while True:
        if evaluation_is_due(state):
            val_nats = _held_out_nats(state, val_ids, engine)
            row = _close_history_row(state, val_nats)
            if val_nats is not None and state.best_val_nats is not None:
                yield events.Evaluated(
                    **position(), loss_nats=row.loss_nats, val_nats=val_nats, best_val_nats=state.best_val_nats
                )
        if state.history and state.history[-1].step == state.step and should_stop_early(state):
            state.schedule.last = state.step  # also if a signal ended the run between the two
        if state.schedule.last is not None and state.step >= state.schedule.last:
            return
        before = clock()
        window = batches.next(state.cursor, state.batch_rng)
        lr = lr_now(state)
        synchronize = must_synchronize(state, engine.sync_every)
        with np.errstate(all="ignore"):  # the guard catches non-finite values below
            metrics, after = _try_step(state, window, engine, lr, synchronize)
            reason = state.guard.judge(metrics, window.inputs.size, partial(_excess, state, engine))
        if reason is not None:
            recovered = _recover(state)
            engine.restored()
            yield events.Diverged(**position(), reason=reason, lr=lr)
            if not recovered:
                raise _divergence(state, reason)
            yield events.Recovered(**position(), lr=lr_now(state), recoveries=state.guard.recoveries)
            continue
        state.recurrent_state = after
        state.step += 1
        if synchronize:
            _average(state, engine.sync_every)
        _count(state, metrics)
        if state.guard.accept(metrics, state.step):
            _copy(state.params, state.snapshot)
        step_s = (clock() - before) if step_s == 0 else 0.95 * step_s + 0.05 * (clock() - before)
        pace = (clock() - started) / (state.step - first)
        if not synchronize:
            continue  # the hosts differ, so the run can neither be saved nor stopped here
        yield events.Progress(
            **position(),
            **vars(metrics),
            lr=lr,
            chars_per_s=config.batch * config.seq / max(step_s, 1e-9),
            remaining_s=None if state.schedule.last is None else (state.schedule.last - state.step) * pace,
        )


def should_stop_early(state: TrainState) -> bool:
    """Return whether to stop early: the held-out loss stays above its best, so the model is overfitting."""
    schedule, here = state.schedule, [row for row in state.history if row.step > state.schedule.first]
    if (
        schedule.last is None
        or state.best_step is None
        or state.best_val_nats is None
        or len(here) <= EARLY_STOP_EVALUATIONS
    ):
        return False
    since = [row.val_nats for row in here if row.step > state.best_step and row.val_nats is not None]
    return (
        len(since) >= EARLY_STOP_EVALUATIONS
        and here[-1].step - max(schedule.first, state.best_step) >= EARLY_STOP_SHARE * (schedule.last - schedule.first)
        and min(since[-EARLY_STOP_EVALUATIONS:]) > state.best_val_nats + EARLY_STOP_NATS
    )


def lr_now(state: TrainState) -> float:
    """Return the learning rate of the next step: the schedule's value, scaled down by any recoveries."""
    return state.schedule.lr(state.step) * state.guard.lr_scale


def epochs(state: TrainState, batches: Batches) -> float:
    """Return the number of epochs trained so far, as a fraction."""
    return state.step / batches.windows


# -- one step ---------------------------------------------------------------------------------------------------------


def _try_step(
    state: TrainState, window: Window, engine: Engine, lr: float, synchronize: bool
) -> tuple[guard.StepMetrics, model.State]:
    """Take one step (loss, gradients, clipping, update); return its metrics and the recurrent state after it.

    The parameters are updated only if loss and gradient norm are finite. `_recover` undoes a rejected step.
    """
    recurrent_state = state.recurrent_state.forget(window.reset_mask)
    seeds = state.dropout_rng.integers(2**63, size=state.config.shards).tolist() if state.shape.dropout else None
    loss, _, after = engine.loss_and_gradients(window.inputs, window.targets, recurrent_state, seeds)
    grad_norm = engine.clip(state.config.clip)
    update_norm = 0.0
    if math.isfinite(loss) and math.isfinite(grad_norm):
        update_norm = engine.update(state.config.optimizer, state.slots, lr, state.step + 1, synchronize)
    weight_norm = optim.norm(state.params)
    metrics = guard.StepMetrics(
        loss_nats=loss,
        grad_norm=grad_norm,
        update_ratio=update_norm / max(weight_norm, 1e-30),
        weight_norm=weight_norm,
        cell_max=engine.cell_max(),
        saturated=engine.saturated(),
    )
    return metrics, after


def _average(state: TrainState, sync_every: int) -> None:
    """Take the weights into their average."""
    number = math.ceil(state.step / sync_every)
    optim.average(state.averaged, state.params, number, state.start, state.start_share)


def _excess(state: TrainState, engine: Engine) -> float:
    """Return how many nats per character the current weights are worse than the last good ones on the last window.

    Both losses are computed from a zero state and without dropout.
    """
    return engine.loss(state.params) - engine.loss(state.snapshot)


def _recover(state: TrainState) -> bool:
    """Restore the last good weights at a lower learning rate; return False if no recoveries are left.

    The average starts from them again. Optimizer slots and recurrent state are cleared. The cursor stays where it is, so training continues on other data.
    """
    _copy(state.snapshot, state.params)
    _copy(state.snapshot, state.averaged)
    if state.start:
        _copy(optim.with_start_share(state.averaged, state.start, 0.0, state.start_share), state.averaged)
    for slot in state.slots.values():
        slot.fill(0)
    state.recurrent_state = model.State.zero(state.shape, state.config.batch)
    return state.guard.recover()


def _divergence(state: TrainState, reason: str) -> DivergenceError:
    """Return the error that ends a run whose recoveries are used up."""
    return DivergenceError(
        f"training diverged at step {state.step} ({reason}) after {guard.MAX_RECOVERIES} recoveries: "
        f"try an `lr` well below {state.config.peak_lr:g}, `clip` 1, and a `seq` below {state.config.seq}"
    )


def _copy(source: Arrays, target: Arrays) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)


def _held_out_nats(state: TrainState, val_ids: TextIds, engine: Engine) -> float | None:
    """Return the held-out loss of the averaged weights; None if nothing is held out or it overflowed, because the history must stay finite."""
    if not len(val_ids):
        return None
    nats = engine.held_out_loss(state.averaged, val_ids)
    if state.start:
        nats = _tune_start_share(state, nats, val_ids, engine)
    return nats if math.isfinite(nats) else None


def _tune_start_share(state: TrainState, nats: float, val_ids: TextIds, engine: Engine) -> float:
    """Give the average another share of the pretrained weights if its held-out loss is then lower than `nats`; return the loss.

    Evaluations try a larger and a smaller share by turns.
    """
    step = SHARE_STEP if len(state.history) % 2 == 0 else -SHARE_STEP
    share = round(state.start_share + step, 3)
    if not 0 <= share <= MOST_START_SHARE:
        return nats
    other = optim.with_start_share(state.averaged, state.start, state.start_share, share)
    other_nats = engine.held_out_loss(other, val_ids)
    if not other_nats < nats:
        return nats
    _copy(other, state.averaged)
    state.start_share = share
    return other_nats


def evaluation_is_due(state: TrainState) -> bool:
    """Return whether an evaluation is due at the current step and has not been done yet."""
    done = state.history[-1].step if state.history else 0
    return state.step != done and _is_evaluated(state, state.step)


def _is_evaluated(state: TrainState, step: int) -> bool:
    """Return whether the schedule has an evaluation after a step."""
    schedule = state.schedule
    if schedule.last is None:
        return False
    return step >= schedule.last or (step - schedule.first) % schedule.eval_every == 0


def must_synchronize(state: TrainState, sync_every: int) -> bool:
    """Return whether all hosts must have the same parameters after the next step.

    This depends on the step and the schedule alone, so that a run takes the same steps wherever it is stopped and resumed.
    """
    step = state.step + 1
    return step % sync_every == 0 or _is_evaluated(state, step)


def _count(state: TrainState, m: guard.StepMetrics) -> None:
    sums = state.sums
    sums.steps += 1
    sums.loss += m.loss_nats
    sums.grad_norm += m.grad_norm
    sums.update_ratio += m.update_ratio
    sums.saturated += m.saturated
    sums.cell_max = max(sums.cell_max, m.cell_max)


def _close_history_row(state: TrainState, val_nats: float | None) -> HistoryRow:
    """Append a row to the history, record whether it is the best, and start new running sums."""
    sums, steps = state.sums, max(1, state.sums.steps)
    row = HistoryRow(
        step=state.step,
        loss_nats=sums.loss / steps,
        val_nats=val_nats,
        lr=lr_now(state),
        grad_norm=sums.grad_norm / steps,
        update_ratio=sums.update_ratio / steps,
        weight_norm=optim.norm(state.params),
        cell_max=sums.cell_max,
        saturated=sums.saturated / steps,
    )
    state.history.append(row)
    state.sums = type(sums)()
    if val_nats is not None and (state.best_val_nats is None or val_nats < state.best_val_nats):
        state.best_step, state.best_val_nats = state.step, val_nats
    state.history = thinned(state.history, state.best_step)
    return row
