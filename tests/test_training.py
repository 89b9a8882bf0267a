"""A run in motion: it learns, it can be stopped anywhere, nothing disturbs it, and what is not finite is kept out."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from charlstm import events
from charlstm.inference import evaluation, sampling
from charlstm.nn import loss as losses
from charlstm.nn import model
from charlstm.nn.config import ModelConfig
from charlstm.settings import DEFAULT_EPOCHS, DEFAULT_MINUTES, Budget, SampleConfig, TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import batches, corpus
from charlstm.training import advice, loop, schedule, state
from charlstm.training.budget import Planner, take_budget
from charlstm.training.data_parallel import DataParallel
from charlstm.training.schedule import Schedule
from charlstm.training.state import TrainState
from tests.conftest import sweep


def begin(text: Path, steps: int = 40, **settings: object) -> tuple[TrainState, np.ndarray, np.ndarray]:
    found = corpus.read([str(text)])
    config = TrainConfig(**({"hidden": 12, "batch": 4, "seq": 10, "dropout": 0.2} | settings))  # type: ignore[arg-type]
    run, _ = state.begin(found, config)
    run.schedule.end(steps, 7, config.batch * config.seq, 10)
    return run, *found.split(0.1)


def finish(run: TrainState, *ids: np.ndarray) -> list[events.Event]:
    return list(loop.train(run, *ids))


def digest(run: TrainState, folder: Path) -> bytes:
    path = folder / "digest.npz"
    checkpoint.save_run(path, run)
    return path.read_bytes()


def test_a_run_begins_with_the_letter_frequencies(text: Path) -> None:
    run, train_ids, _ = begin(text)
    V = len(run.vocabulary)
    expected = evaluation.unigram_nats(train_ids, train_ids, V)
    tolerance = 0.2 * (math.log(V) - expected)
    for weights in (run.params, run.snapshot, run.averaged):
        assert evaluation.evaluate(weights, run.shape, train_ids) == pytest.approx(expected, abs=tolerance)


def test_it_learns_more_than_the_letter_frequencies(text: Path) -> None:
    run, train_ids, val_ids = begin(text, steps=300, hidden=24, dropout=0.0)
    finish(run, train_ids, val_ids)
    assert run.best_val_nats is not None
    assert run.best_val_nats < 0.7 * evaluation.unigram_nats(train_ids, val_ids, len(run.vocabulary))
    assert run.history[-1].loss_nats < run.history[0].loss_nats


@pytest.mark.parametrize("stop_at", sweep([0, 1, 6, 7, 8, 20, 39], 1, 7, 39))
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_stopped_anywhere_and_resumed_it_ends_in_the_same_bytes(
    text: Path, folder: Path, stop_at: int, optimizer: str
) -> None:
    undisturbed = begin(text, optimizer=optimizer)
    finish(*undisturbed)

    run, *ids = begin(text, optimizer=optimizer)
    for _ in itertools.takewhile(lambda event: event.step < stop_at, loop.train(run, *ids)):
        pass
    path = folder / "stopped.npz"
    checkpoint.save_run(path, run)
    again = checkpoint.load_run(path)
    finish(again, *ids)
    assert digest(again, folder) == digest(undisturbed[0], folder)


def test_the_state_is_at_rest_at_every_event(text: Path, folder: Path) -> None:
    """Saved at each event of a run, evaluations among them, and resumed from there: always the same end."""
    undisturbed = begin(text, steps=9)
    finish(*undisturbed)
    expected = digest(undisturbed[0], folder)
    run, *ids = begin(text, steps=9)
    for number, _ in enumerate(loop.train(run, *ids)):
        path = folder / f"{number}.npz"
        checkpoint.save_run(path, run)
        again = checkpoint.load_run(path)
        finish(again, *ids)
        assert digest(again, folder) == expected


def test_previews_and_evaluations_change_no_weight(text: Path, folder: Path) -> None:
    quiet = begin(text, steps=20)
    finish(*quiet)
    run, train_ids, val_ids = begin(text, steps=20)
    for _ in loop.train(run, train_ids, val_ids):
        writer = sampling.CharModel(run.shape, run.params, run.vocabulary)
        list(sampling.generate(writer, SampleConfig(length=5), [np.random.default_rng(0)]))
        evaluation.evaluate(run.params, run.shape, val_ids)
    assert digest(run, folder) == digest(quiet[0], folder)


def test_the_clock_changes_no_weight(text: Path, folder: Path) -> None:
    usual, odd = begin(text, steps=10), begin(text, steps=10)
    finish(*usual)
    ticks = itertools.count(step=1000.0)
    for _ in loop.train(*odd, clock=lambda: next(ticks)):
        pass
    assert digest(usual[0], folder) == digest(odd[0], folder)


def test_another_seed_is_another_run(text: Path) -> None:
    (one, *ids), (two, *_) = begin(text, steps=3, seed=1), begin(text, steps=3, seed=2)
    finish(one, *ids)
    finish(two, *ids)
    assert not np.array_equal(one.params["out.W"], two.params["out.W"])


def test_evaluation_equals_one_long_window(text: Path) -> None:
    run, train_ids, _ = begin(text)
    ids = train_ids[:333].astype(np.intp)
    work = model.Workspace.empty(run.shape, 332, 1)
    logits, _ = model.forward(run.params, run.shape, ids[:-1, None], model.State.zero(run.shape, 1), work)
    expected = losses.nll(logits, ids[1:]).mean()
    assert evaluation.evaluate(run.params, run.shape, ids) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("chars", [2, 3, 99, 101, 1999, 2000, 2001, 3602])
def test_evaluation_counts_every_character_but_the_first_once(chars: int) -> None:
    """With all weights zero each character costs ln V, however the text is cut into streams."""
    config = ModelConfig(5, hidden=3)
    params = {name: np.zeros(shape, np.float32) for name, shape in model.shapes(config).items()}
    ids = np.random.default_rng(0).integers(0, 5, chars)
    assert evaluation.evaluate(params, config, ids) == pytest.approx(math.log(5), rel=1e-6)


def test_evaluation_in_streams_is_close_to_one_stream(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, train_ids, _ = begin(text)
    several = evaluation.evaluate(run.params, run.shape, train_ids)
    monkeypatch.setattr(evaluation, "STREAMS", 1)
    assert several == pytest.approx(evaluation.evaluate(run.params, run.shape, train_ids), rel=1e-3)


def test_letter_frequencies_are_judged_as_a_model_would_be() -> None:
    ids = np.array([0, 0, 0, 1])
    expected = -(3 * math.log(4 / 6) + math.log(2 / 6)) / 4
    assert evaluation.unigram_nats(ids, ids, 2) == pytest.approx(expected)


def test_the_schedule_warms_up_comes_down_and_depends_on_the_step_alone() -> None:
    plan = Schedule(first=100, last=1100, peak_lr=1.0)
    rates = [plan.lr(step) for step in range(100, 1100)]
    assert 0 < rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert np.argmax(rates) <= schedule.WARMUP_STEPS
    assert rates[-1] == pytest.approx(schedule.FINAL_LR, abs=1e-3)
    assert all(b <= a for a, b in itertools.pairwise(rates[schedule.WARMUP_STEPS :]))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.0, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2], True),
        ([3.0, 2.0, 2.2, 2.2, 2.2, 2.2, 2.2, 2.005], False),  # nearly the best again
        ([3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3], False),
        ([3.0, 2.0, 2.2, 2.2, 2.2, 2.2], False),  # too few since the best
    ],
)
def test_a_run_stops_early_only_if_its_held_out_loss_stays_above_its_best(
    text: Path, losses: list[float], expected: bool
) -> None:
    run, *_ = begin(text, steps=80)
    for number, nats in enumerate(losses, start=1):
        run.step = 10 * number
        loop._close_history_row(run, nats)
    assert (run.best_step, run.best_val_nats) == (10 * (losses.index(min(losses)) + 1), min(losses))
    assert loop.should_stop_early(run) == expected


def test_a_run_that_was_stopped_as_it_would_have_ended_early_ends_there_when_it_is_resumed(text: Path) -> None:
    run, *ids = begin(text, steps=80)
    for number, nats in enumerate([3.0, 2.0, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2], start=1):
        run.step = 7 * number
        loop._close_history_row(run, nats)
    assert finish(run, *ids) == []
    assert run.schedule.last == 56


def test_a_row_of_the_history_is_a_mean_since_the_row_before(text: Path) -> None:
    run, *ids = begin(text, steps=14)
    losses = [event.loss_nats for event in finish(run, *ids) if isinstance(event, events.Progress)]
    means = [row.loss_nats for row in run.history]
    assert means == pytest.approx([sum(losses[:7]) / 7, sum(losses[7:]) / 7])


def test_the_training_loop_resets_the_streams_that_a_window_names(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, *ids = begin(text, steps=200)
    monkeypatch.setattr(batches, "RESET_CHARS", 30)  # three windows
    started = []
    forward = DataParallel.loss_and_gradients

    def seen(engine, inputs, targets, state, seeds=None):  # type: ignore[no-untyped-def]
        started.append(int(np.count_nonzero(~state.c.any(axis=(0, 2)))))
        return forward(engine, inputs, targets, state, seeds)

    monkeypatch.setattr(DataParallel, "loss_and_gradients", seen)
    finish(run, *ids)
    assert started[0] == run.config.batch
    assert sum(started[1:]) >= 199 * run.config.batch / 3


@pytest.mark.parametrize(
    ("held_out", "dropout", "word"),
    [
        ([3.0, 2.0, 2.1, 2.2], 0.0, "overfits"),
        ([3.0, 2.5, 2.2, 2.0], 0.0, "still improving"),
        ([3.0, 2.0, 2.005, 2.01], 0.0, ""),
        ([3.0, 2.0, 2.2], 0.0, ""),
    ],
)
def test_advice_follows_the_held_out_loss(held_out: list[float], dropout: float, word: str) -> None:
    found = advice.advise([(1.5, nats) for nats in held_out], dropout, "verses")
    assert word in found
    assert bool(found) == bool(word)


def test_a_run_that_is_extended_starts_at_the_rate_where_it_ended(text: Path) -> None:
    run, *_ = begin(text, steps=40)
    run.step = 40
    take_budget(run, Budget(steps=80), windows=10, val_chars=10)
    assert (run.schedule.first, run.schedule.last) == (40, 80)
    assert run.schedule.peak_lr == pytest.approx(run.config.peak_lr * schedule.FINAL_LR)


@pytest.mark.parametrize("last", [None, 1000])
def test_a_run_that_is_extended_in_its_warm_up_has_lost_no_rate(text: Path, last: int | None) -> None:
    run, *_ = begin(text)
    run.schedule.last, run.step = last, 3
    take_budget(run, Budget(steps=80), windows=10, val_chars=10)
    assert run.schedule.peak_lr == pytest.approx(run.config.peak_lr)


@pytest.mark.parametrize(
    ("minutes", "expected"), [(None, DEFAULT_EPOCHS * 10), (DEFAULT_MINUTES, DEFAULT_MINUTES * 60 * 9.5)]
)
def test_a_fast_run_without_a_budget_ends_at_the_limit_in_epochs(
    text: Path, minutes: float | None, expected: float
) -> None:
    run, *_ = begin(text)
    run.schedule = Schedule(first=0, last=None, peak_lr=0.1, minutes=minutes)
    now = iter([0.0, 10.0])
    planner = Planner(run, windows=10, val_chars=10, clock=lambda: next(now))
    run.step = 100
    (planned,) = planner.on_progress(events.Progress(100, None, 10.0, 10.0, 2.0, 1, 1, 1, 1, 0.1, 0.1, 400.0, None))
    assert planned.steps == run.schedule.last == pytest.approx(expected, rel=0.05)


def test_a_text_that_is_read_in_a_moment_is_planned_before_its_last_epoch(text: Path) -> None:
    run, *_ = begin(text)
    run.schedule = Schedule(first=0, last=None, peak_lr=0.1)
    planner = Planner(run, windows=1, val_chars=10, clock=itertools.count(0, 0.001).__next__)
    for run.step in range(1, DEFAULT_EPOCHS):
        progress = events.Progress(run.step, None, run.step, 0.001, 2.0, 1, 1, 1, 1, 0.1, 0.1, 400.0, None)
        if list(planner.on_progress(progress)):
            break
    assert (run.step, run.schedule.last) == (DEFAULT_EPOCHS / 10, DEFAULT_EPOCHS)


def test_a_budget_that_is_gone_is_not_overrun(text: Path) -> None:
    run, *_ = begin(text)
    run.schedule = Schedule(first=0, last=None, peak_lr=0.1, minutes=1.0)
    now = iter([0.0, 70.0])
    planner = Planner(run, windows=10, val_chars=10, clock=lambda: next(now))
    run.step = 1
    (planned,) = planner.on_progress(events.Progress(1, None, 0.1, 70.0, 2.0, 1, 1, 1, 1, 0.1, 0.1, 400.0, None))
    assert planned.steps == 1


def test_evaluations_take_a_small_share_of_a_short_run() -> None:
    plan = Schedule(first=0, last=None, peak_lr=1.0)
    plan.end(1000, 0, chars_per_step=1000, val_chars=20_000)
    forward_passes = 1000 / plan.eval_every * 20_000
    assert forward_passes / 3 <= 1.2 * schedule.EVALUATION_SHARE * 1000 * 1000
    plan.end(1000, 123, chars_per_step=1000, val_chars=100_000)
    assert plan.eval_every == 123
