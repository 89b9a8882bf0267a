"""A run in motion: a generator of events that takes steps, evaluates, and keeps divergence out.

It does no I/O and draws nothing on a screen: whoever drives the generator shows, saves or stops. At every event the state is at rest:
stopped there, saved and resumed, training goes on exactly as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import events
from charlstm.batches import Batches, Window
from charlstm.errors import DivergenceError
from charlstm.nn import loss as losses
from charlstm.nn import model, optim, parallel
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays
from charlstm.state import Point, TrainState

RESET = 0.03
"""Probability that a stream starts fresh in a window, so that the carried state can't drift away from what a sample begins with."""
EVALUATION_STREAMS = 64
EVALUATION_SEQ = 100
EVALUATION_STREAM_CHARS = 1000
"""A held-out text is read in so many streams at most, each of at least so many characters."""

SNAPSHOT_EVERY = 100
"""Steps between snapshots of the parameters."""
MAX_RECOVERIES = 8
RECOVERY_LR = 0.5
"""What the learning rate is multiplied with at each recovery."""
RECENT = 50
"""How many losses the guard judges a new one by."""


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
    with parallel.Crew(threads) as crew:
        yield from _train(state, train_ids, val_ids, crew, clock)


def _train(
    state: TrainState, train_ids: NDArray[Any], val_ids: NDArray[Any], crew: parallel.Crew, clock: Callable[[], float]
) -> Iterator[events.Event]:
    config = state.config
    batches = Batches(train_ids, config.batch, config.seq, RESET)
    streams = parallel.split(config.batch, config.parts)
    works = [model.Workspace.empty(state.shape, config.seq, s.stop - s.start) for s in streams]
    started, first, step_s = clock(), state.step, 0.0

    def where() -> dict[str, Any]:
        return {
            "step": state.step,
            "steps": state.plan.last,
            "epoch": epochs(state, batches),
            "elapsed_s": clock() - started,
        }

    while True:
        if _evaluation_is_due(state):
            val_nats = evaluate(state.params, state.shape, val_ids, crew, config.parts) if len(val_ids) else None
            point = _close_tally(state, val_nats)
            if val_nats is not None and state.best_val_nats is not None:
                yield events.Evaluated(
                    **where(), loss_nats=point.loss_nats, val_nats=val_nats, best_val_nats=state.best_val_nats
                )
        if state.plan.last is not None and state.step >= state.plan.last:
            return
        before = clock()
        window = batches.next(state.cursor, state.batch_rng)
        lr = state.plan.lr(state.step) * state.guard.lr_scale
        with np.errstate(all="ignore"):  # what is not finite is looked for below, and never gets any further
            loss, grad_norm, weight_norm, after = _try_step(state, window, works, crew, lr)
        reason = _judge(state, loss, grad_norm, weight_norm)
        if reason is not None:
            yield events.Diverged(**where(), reason=reason, lr=lr)
            _recover(state, reason)
            yield events.Recovered(
                **where(), lr=state.plan.lr(state.step) * state.guard.lr_scale, recoveries=state.guard.recoveries
            )
            continue
        state.carried = after
        state.step += 1
        cell_max = float(np.abs(after.c).max())
        _count(state, loss, grad_norm, cell_max)
        if state.step % SNAPSHOT_EVERY == 0:
            _take_snapshot(state)
        step_s = (clock() - before) if step_s == 0 else 0.95 * step_s + 0.05 * (clock() - before)
        pace = (clock() - started) / (state.step - first)
        yield events.Progress(
            **where(),
            loss_nats=loss,
            lr=lr,
            grad_norm=grad_norm,
            cell_max=cell_max,
            weight_norm=weight_norm,
            chars_per_s=config.batch * config.seq / max(step_s, 1e-9),
            remaining_s=None if state.plan.last is None else (state.plan.last - state.step) * pace,
        )


def epochs(state: TrainState, batches: Batches) -> float:
    """Passes over the text so far."""
    return state.step / batches.windows


def evaluate(
    params: Arrays, config: ModelConfig, ids: NDArray[Any], crew: parallel.Crew | None = None, parts: int = 1
) -> float:
    """Mean loss in nats a character over a whole text (chars,), of which every character but the first is predicted once.

    The text is read in parallel streams, each from a zero state of its own; nothing of a run is touched.
    """
    pairs = len(ids) - 1
    N = max(1, min(EVALUATION_STREAMS, pairs // EVALUATION_STREAM_CHARS))
    streams = parallel.split(N, min(parts, N))

    def job(k: int) -> float:
        return _surprise(params, config, ids, N, np.arange(streams[k].start, streams[k].stop))

    return sum((crew or parallel.Crew(1)).map(job, len(streams))) / pairs


def _surprise(params: Arrays, config: ModelConfig, ids: NDArray[Any], N: int, streams: NDArray[Any]) -> float:
    """Nats of all characters that some of N streams predict."""
    pairs = len(ids) - 1
    length = math.ceil(pairs / N)
    T = min(EVALUATION_SEQ, length)
    state, work = model.State.zero(config, len(streams)), model.Workspace.empty(config, T, len(streams))
    total = 0.0
    for start in range(0, length, T):
        places = start + np.arange(T)[:, None] + streams * length  # (T, N)
        valid = (np.arange(start, start + T) < length)[:, None] & (places < pairs)
        window = np.minimum(places, pairs - 1)
        logits, state = model.forward(params, config, ids[window].astype(np.intp), state, work)
        surprise = losses.nats(logits, ids[window + 1].reshape(-1).astype(np.intp))
        total += float(surprise[valid.reshape(-1)].sum(dtype=np.float64))
    return total


def letters_nats(train_ids: NDArray[Any], ids: NDArray[Any], V: int) -> float:
    """Nats a character of `ids` under the letter frequencies of `train_ids`, each count raised by one."""
    counts = np.bincount(train_ids, minlength=V) + 1.0
    return float(-(np.bincount(ids, minlength=V) / len(ids)) @ np.log(counts / counts.sum()))


# -- one step ---------------------------------------------------------------------------------------------------------


def _try_step(
    state: TrainState, window: Window, works: list[model.Workspace], crew: parallel.Crew, lr: float
) -> tuple[float, float, float, model.State]:
    """Loss, gradients, clipping, update: returns loss, gradient norm before clipping, weight norm, state after.

    The parameters are updated only where loss and gradient are finite.
    """
    carried = state.carried.forget(window.fresh)
    rngs: list[np.random.Generator | None] = [None] * len(works)
    if state.shape.dropout:
        rngs = [np.random.default_rng(seed) for seed in state.dropout_rng.integers(2**63, size=len(works))]
    loss, grads, after = parallel.loss_and_gradients(
        crew, state.params, state.shape, window.inputs, window.targets, carried, works, rngs
    )
    grad_norm = optim.clip_global_norm(grads, state.config.clip)
    if math.isfinite(loss) and math.isfinite(grad_norm):
        optim.UPDATES[state.config.optimizer](state.params, grads, state.slots, lr, state.step + 1)
    return loss, grad_norm, optim.norm(state.params), after


def _evaluation_is_due(state: TrainState) -> bool:
    """Whether the run stands at a step to evaluate at and has not done so."""
    plan, done = state.plan, state.history[-1].step if state.history else 0
    if plan.last is None or state.step == done:
        return False
    return state.step >= plan.last or (state.step - plan.first) % plan.eval_every == 0


def _count(state: TrainState, loss: float, grad_norm: float, cell_max: float) -> None:
    tally = state.tally
    tally.steps += 1
    tally.loss += loss
    tally.grad_norm += grad_norm
    tally.cell_max = max(tally.cell_max, cell_max)
    state.guard.recent = [*state.guard.recent[-(RECENT - 1) :], loss]


def _close_tally(state: TrainState, val_nats: float | None) -> Point:
    """Write a row of the history, note whether it is the best, and begin a new tally."""
    tally, steps = state.tally, max(1, state.tally.steps)
    point = Point(
        step=state.step,
        loss_nats=tally.loss / steps,
        val_nats=val_nats,
        lr=state.plan.lr(max(0, state.step - 1)) * state.guard.lr_scale,
        grad_norm=tally.grad_norm / steps,
        cell_max=tally.cell_max,
        weight_norm=optim.norm(state.params),
    )
    state.history.append(point)
    state.tally = type(tally)()
    if val_nats is not None and (state.best_val_nats is None or val_nats < state.best_val_nats):
        state.best_step, state.best_val_nats = state.step, val_nats
    return point


# -- the guard --------------------------------------------------------------------------------------------------------


def _judge(state: TrainState, loss: float, grad_norm: float, weight_norm: float) -> str | None:
    """Why the step that was tried must not stand; None if it may."""
    for what, value in (("loss", loss), ("gradient norm", grad_norm), ("weight norm", weight_norm)):
        if not math.isfinite(value):
            return f"the {what} is no longer finite"
    return None


def _take_snapshot(state: TrainState) -> None:
    for name, p in state.params.items():
        np.copyto(state.good[name], p)
    state.guard.good_step = state.step


def _recover(state: TrainState, reason: str) -> None:
    """Back to the last good snapshot with a lower rate, empty slots, a zero state, and on with other data."""
    for name, p in state.params.items():
        np.copyto(p, state.good[name])
    for slot in state.slots.values():
        slot.fill(0)
    state.carried = model.State.zero(state.shape, state.config.batch)
    state.guard.recent = []
    if state.guard.recoveries >= MAX_RECOVERIES:
        raise DivergenceError(
            f"training diverged at step {state.step} ({reason}) and {MAX_RECOVERIES} recoveries were spent: "
            f"try a learning rate below {state.config.peak_lr:g} (--lr), or --clip 1"
        )
    state.guard.recoveries += 1
    state.guard.lr_scale *= RECOVERY_LR
