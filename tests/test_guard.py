"""The guard: what is not finite never stands, what diverges is brought back, what is merely hard is left alone."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlstm import events
from charlstm.errors import DivergenceError
from charlstm.nn import optim
from charlstm.settings import TrainConfig
from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import guard, loop, state
from charlstm.training.guard import GuardRecord, StepMetrics
from charlstm.training.state import TrainState
from tests.conftest import ROOT, Result, slow, sweep

Ids = np.ndarray
CHARS = 2048


def begin(text: Path, steps: int = 600, **settings: object) -> tuple[TrainState, Ids, Ids]:
    found = corpus.read([str(text)])
    config = TrainConfig(**({"hidden": 16, "batch": 4, "seq": 10} | settings))  # type: ignore[arg-type]
    run, _ = state.begin(found, config)
    run.schedule.end(steps, 50, config.batch * config.seq, 10)
    return run, *found.split(0.1)


def is_finite(run: TrainState) -> bool:
    arrays = [
        *run.params.values(),
        *run.slots.values(),
        *run.snapshot.values(),
        run.recurrent_state.h,
        run.recurrent_state.c,
    ]
    return all(np.isfinite(a).all() for a in arrays)


def measures(loss: float, **other: float) -> StepMetrics:
    usual = {"grad_norm": 1.0, "update_ratio": 1e-3, "weight_norm": 10.0, "cell_max": 3.0, "saturated": 0.1}
    return StepMetrics(loss_nats=loss, **(usual | other))


def record(level: float = 2.0, steps: int = 100) -> GuardRecord:
    """A guard that has seen some steps of about this loss."""
    rng, kept = np.random.default_rng(0), GuardRecord()
    for step in range(1, steps + 1):
        kept.accept(measures(level + 0.05 * rng.standard_normal()), step)
    return kept


def never() -> float:
    raise AssertionError("the test against the good weights was not needed")


# -- judging


@pytest.mark.parametrize("what", ["loss_nats", "grad_norm", "weight_norm", "cell_max", "update_ratio"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_does_not_stand(what: str, value: float) -> None:
    bad = StepMetrics(**(vars(measures(2.0)) | {what: value}))
    assert "no longer finite" in str(record().judge(bad, CHARS, never))


def test_a_step_larger_than_the_weights_does_not_stand() -> None:
    assert "30 times" in str(record().judge(measures(2.0, update_ratio=30), CHARS, never))


def test_usual_losses_stand_without_a_test() -> None:
    kept = record()
    for loss in (1.5, 2.0, 2.2, 2.4):
        assert kept.judge(measures(loss), CHARS, never) is None


def test_a_loss_that_is_much_worse_than_the_good_weights_does_not_stand() -> None:
    assert "rose from about 2.00 to 7.00 nats" in str(record().judge(measures(7.0), CHARS, lambda: 5.0))


def test_a_rise_must_last_before_it_is_divergence() -> None:
    kept = record()
    reasons = [kept.judge(measures(3.0), CHARS, lambda: 1.0) for _ in range(guard.PATIENCE)]
    assert reasons[:-1] == [None] * (guard.PATIENCE - 1)
    assert reasons[-1] is not None


def test_a_spike_that_passes_is_none() -> None:
    kept = record()
    for _ in range(20):
        assert kept.judge(measures(3.0), CHARS, lambda: 1.0) is None
        assert kept.judge(measures(2.0), CHARS, never) is None


def test_a_text_that_became_harder_is_no_divergence() -> None:
    """From English to Chinese: the loss trebles, for the good weights as for the new ones."""
    kept, tests = record(), itertools.count()
    for step in range(101, 400):
        m = measures(6.0)
        assert kept.judge(m, CHARS, lambda: -0.1 + 0 * next(tests)) is None
        kept.accept(m, step)
    assert next(tests) < 60, "it gets used to it and stops testing"


def test_a_slow_collapse_is_found_although_each_step_is_small() -> None:
    kept, found = record(), None
    for step in range(101, 2000):
        m = measures(2.0 + (step - 100) / 500)
        found = kept.judge(m, CHARS, lambda rise=m.loss_nats - 2.0: rise)  # type: ignore[misc]
        if found:
            break
        kept.accept(m, step)
    assert found
    assert kept.good_step < 500, "the snapshot is from before the collapse"


def test_weights_that_begin_hopeless_are_given_their_time() -> None:
    """A first loss of 60 nats is the run's own past too."""
    kept = GuardRecord()
    for step in range(1, 500):
        m = measures(60.0 - step / 10)
        assert kept.judge(m, CHARS, lambda: 0.0) is None
        kept.accept(m, step)


def test_the_loss_of_a_single_character_is_no_reason() -> None:
    """With batch 1 and window 1 a rare letter costs 8 nats, and is no divergence; 40 nats are."""
    kept = record()
    for _ in range(50):
        assert kept.judge(measures(8.0), 1, lambda: 4.7) is None
    assert kept.judge(measures(40.0), 1, lambda: 36.7) is not None


def test_a_loss_that_explodes_at_the_very_start_is_found() -> None:
    kept = GuardRecord()
    assert kept.judge(measures(3.3), CHARS, never) is None
    kept.accept(measures(3.3), 1)
    assert kept.judge(measures(200.0), CHARS, lambda: 196.7) is not None


def test_recoveries_are_bounded_and_lower_the_rate_each_time() -> None:
    kept, rates = GuardRecord(), [1.0]
    while kept.recover():
        rates.append(kept.lr_scale)
    assert len(rates) == guard.MAX_RECOVERIES + 1
    assert all(b < a for a, b in itertools.pairwise(rates))


def test_the_rate_comes_back_after_one_accident_and_not_after_two() -> None:
    kept = record()
    for recoveries, expected in ((1, 1.0), (2, guard.RECOVERY_LR)):
        assert kept.recover()
        assert kept.lr_scale < 0.2
        for step in range(101, 301):
            kept.accept(measures(2.0), step)
        assert (kept.recoveries, kept.lr_scale) == (recoveries, pytest.approx(expected))


def test_the_weights_of_a_good_step_are_kept_to_come_back_to(text: Path) -> None:
    run, *ids = begin(text, steps=guard.RECENT + 5)
    for event in loop.train(run, *ids):
        if isinstance(event, events.Progress) and event.step == guard.RECENT:
            good = {name: p.copy() for name, p in run.params.items()}
    assert run.guard.good_step == guard.RECENT
    assert all(np.array_equal(run.snapshot[name], p) for name, p in good.items())
    assert not np.array_equal(run.params["out.W"], good["out.W"])


def test_recovery_restores_the_good_weights_clears_the_rest_and_lowers_the_rate(text: Path) -> None:
    run, *_ = begin(text)
    rate = loop.lr_now(run)
    good = {name: p.copy() for name, p in run.params.items()}
    for a in (
        *run.params.values(),
        *run.averaged.values(),
        *run.slots.values(),
        run.recurrent_state.h,
        run.recurrent_state.c,
    ):
        a += 1
    assert loop._recover(run)
    assert all(np.array_equal(run.params[name], p) for name, p in good.items())
    assert all(np.array_equal(run.averaged[name], p) for name, p in good.items())
    assert not any(a.any() for a in (*run.slots.values(), run.recurrent_state.h, run.recurrent_state.c))
    assert loop.lr_now(run) == pytest.approx(guard.RECOVERY_LR * rate)


# -- in training

Poison = Callable[[TrainState, pytest.MonkeyPatch], None]


def poison_weights(run: TrainState, _: pytest.MonkeyPatch) -> None:
    run.params["layer1.U"].flat[7] = np.nan


def poison_slots(run: TrainState, _: pytest.MonkeyPatch) -> None:
    run.slots["m/out.W"].flat[0] = np.nan


def poison_state(run: TrainState, _: pytest.MonkeyPatch) -> None:
    run.recurrent_state.c.flat[3] = np.nan


def poison_gradient(_: TrainState, patch: pytest.MonkeyPatch) -> None:
    clip, calls = optim.clip_global_norm, itertools.count()

    def poisoned(grads: dict[str, np.ndarray], limit: float) -> float:
        if next(calls) == 0:
            grads["layer1.W"].flat[0] = np.nan
        return clip(grads, limit)

    patch.setattr(optim, "clip_global_norm", poisoned)


@pytest.mark.parametrize(
    "poison", [poison_weights, *(pytest.param(p, marks=slow) for p in (poison_slots, poison_state, poison_gradient))]
)
@pytest.mark.parametrize("at", sweep([1, 130, 250], 130))
def test_a_nan_put_in_by_hand_is_recovered_from_once(text: Path, poison: Poison, at: int) -> None:
    run, *ids = begin(text, steps=300)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for event in loop.train(run, *ids):
            seen.append(event)
            if isinstance(event, events.Progress) and event.step == at and not run.guard.recoveries:
                poison(run, patch)
    kinds = [type(event) for event in seen if isinstance(event, (events.Diverged, events.Recovered))]
    assert kinds == [events.Diverged, events.Recovered]
    assert is_finite(run)
    assert run.step == 300


@slow
def test_a_nan_put_in_by_hand_costs_at_most_two_percent(folder: Path) -> None:
    """In the mean of a few runs, on a text that they do not know by heart: there, a thousandth of a nat would be ten percent."""
    text = folder / "fables.txt"
    text.write_text((ROOT / "corpora" / "fables.txt").read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    costs = []
    for seed in (1, 2):
        best = []
        for at in (0, 1, 130, 500):  # 0 never comes
            run, *ids = begin(text, seed=seed)
            with pytest.MonkeyPatch.context() as patch:
                for event in loop.train(run, *ids):
                    if isinstance(event, events.Progress) and event.step == at and not run.guard.recoveries:
                        poison_weights(run, patch)
            assert run.best_val_nats is not None
            best.append(run.best_val_nats)
        costs += [nats / best[0] for nats in best[1:]]
    assert np.mean(costs) < 1.02


def test_the_state_is_finite_at_every_event_of_a_run_that_diverges(text: Path, folder: Path) -> None:
    run, *ids = begin(text, steps=60, optimizer="sgd", lr=3000.0, clip=0.0)
    diverged = 0
    for event in loop.train(run, *ids):
        diverged += isinstance(event, events.Diverged)
        assert is_finite(run)
        checkpoint.save_run(folder / "r.npz", run)
    assert diverged >= 1
    assert run.step == 60


def test_a_rate_beyond_help_ends_in_one_error_with_good_weights(text: Path) -> None:
    run, *ids = begin(text, optimizer="sgd", lr=1e38, clip=0.0)
    with pytest.raises(DivergenceError, match="`lr`"):
        list(loop.train(run, *ids))
    assert is_finite(run)


@pytest.mark.parametrize("stop_at", sweep([24, 25, 26, 70], 25, 70))
def test_a_run_that_recovered_resumes_exactly(text: Path, folder: Path, stop_at: int) -> None:
    def end(stop_at: int | None) -> bytes:
        run, *ids = begin(text, steps=120, optimizer="sgd", lr=300.0, clip=0.0)
        path = folder / "r.npz"
        for event in loop.train(run, *ids):
            if event.step == stop_at:
                checkpoint.save_run(path, run)
                run = checkpoint.load_run(path)
                for _ in loop.train(run, *ids):
                    pass
                break
        assert run.guard.recoveries >= 1
        checkpoint.save_run(path, run)
        return path.read_bytes()

    assert end(stop_at) == end(None)


def test_divergence_ends_the_program_with_status_three_and_a_good_file(
    charlstm: Callable[..., Result], text: Path, folder: Path
) -> None:
    options = ("--optimizer", "sgd", "--lr", 1e38, "--clip", 0, "--hidden", 8, "--preview-every", 0)
    result = charlstm("train", text, "--steps", 500, *options)
    assert result.status == 3
    assert result.out == ""
    assert "checkpoints/verses.npz" in result.sentence
    assert is_finite(checkpoint.load_run(folder / "checkpoints/verses.npz"))
    assert "recovery 1" in result.err


def test_a_run_that_did_not_learn_says_why(charlstm: Callable[..., Result], text: Path) -> None:
    result = charlstm("train", text, "--steps", 60, "--lr", 1e-7, "--hidden", 8, "--preview-every", 0)
    assert result.status == 0
    assert "not learned" in result.err
    assert "--lr" in result.err


def test_a_run_hardly_better_than_the_letter_frequencies_that_it_began_with_has_not_learned(
    charlstm: Callable[..., Result], folder: Path
) -> None:
    setting = ("--hidden", 8, "--batch", 8, "--seq", 16, "--init-from", "none", "--preview-every", 0)
    result = charlstm("train", "fables", "--steps", 60, "--lr", 2e-3, *setting)
    assert "not learned more than letter frequencies" in result.err
    assert "60 steps were too few" in result.err
    assert "not learned" not in charlstm("train", "fables", "--name", "more", "--steps", 60, "--lr", 0.05, *setting).err


@slow
def test_the_setting_that_broke_the_hand_written_one_trains_for_5000_steps(
    charlstm: Callable[..., Result], folder: Path
) -> None:
    """One layer of 100, 100 steps of BPTT, batch 1, plain SGD at 0.1, nothing clipped; on real text."""
    setting = [
        "--hidden",
        "100",
        "--layers",
        "1",
        "--batch",
        "1",
        "--seq",
        "100",
        "--optimizer",
        "sgd",
        "--lr",
        "0.1",
        "--clip",
        "0",
    ]
    result = charlstm("train", "fables", *setting, "--steps", 5000, "--eval-every", 500, "--preview-every", 0)
    assert result.status == 0, result.err
    told = json.loads(charlstm("info", "my-fables", "--json").out)
    assert told["step"] == 5000
    for row in told["history"]:
        assert all(math.isfinite(row[name]) for name in ("loss_nats", "cell_max", "grad_norm", "weight_norm"))
    losses = [row["loss_nats"] for row in told["history"]]
    assert losses[-1] < losses[0] - 0.3
    assert "diverged" not in result.err


def test_a_held_out_loss_that_overflows_is_none_and_the_run_can_be_saved(
    text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, *ids = begin(text, steps=60)
    monkeypatch.setattr("charlstm.training.data_parallel.evaluate", lambda *_: math.inf)
    for _ in loop.train(run, *ids):
        pass
    assert [point.val_nats for point in run.history] == [None, None]
    checkpoint.save_run(folder / "r.npz", run)
    assert checkpoint.load_run(folder / "r.npz").history == run.history
