"""How long a run trains: turns a budget into a number of steps, at once or as soon as the pace is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from charlstm import events, settings
from charlstm.settings import Budget
from charlstm.text.identity import train_chars
from charlstm.training.loop import should_stop_early
from charlstm.training.schedule import EVALUATION_SHARE, Schedule
from charlstm.training.state import TrainState

AFTER_S, AFTER_STEPS = 2.0, 10
"""A time budget is converted to steps after this many seconds of training (or a twentieth of the budget), and at least
this many steps. Corrections are at least as far apart."""
SLACK, UNTIL = 0.05, 0.95
"""The plan is corrected if it is off by more than the first fraction, until the second fraction of the time is gone."""


def take_budget(run: TrainState, budget: Budget, windows: int, val_chars: int) -> tuple[bool, str]:
    """Turn a budget into the plan's last step; leave a time budget to the `Planner`.

    Args:
        run: the run; its plan is replaced if the budget requires it.
        budget: what the user asked for.
        windows: steps per epoch.
        val_chars: length of the held-out text.

    Returns:
        whether there is anything left to train, and a note for the user, which may be empty.
    """
    wanted = budget.steps
    if budget.epochs is not None:
        wanted = max(1, round(budget.epochs * windows))
    if wanted is not None:
        if wanted <= run.step:
            return False, f"the run is already at step {run.step:,}, and {wanted:,} steps were requested"
        if 0 < run.step == run.schedule.last and should_stop_early(
            run
        ):  # the same command again must find the run finished
            return False, (
                f"the run stopped early at step {run.step:,} of {wanted:,}: the held-out loss stopped improving; "
                f"set `minutes` to train it further"
            )
        if wanted != run.schedule.last:
            _extend(run)
            _end(run, wanted, val_chars)
    elif budget.minutes is not None:
        _extend(run)
        run.schedule.minutes = budget.minutes
    elif run.schedule.last is None and run.schedule.minutes is None:
        minutes, epochs = default_budget(run)
        return True, (
            f"no budget was given: training for {minutes:g} minute{'s' * (minutes != 1)} or {epochs} epochs, "
            f"whichever ends first (set `minutes`, `epochs` or `steps`)"
        )
    elif run.schedule.last is not None and run.step >= run.schedule.last:
        return False, "the run is finished: set `minutes`, `epochs` or `steps` to train it further"
    return True, ""


def default_budget(run: TrainState) -> tuple[float, int]:
    """Return the minutes and epochs of a run without a budget; the first to be reached ends it."""
    chars = train_chars(run.text.chars, run.config.val_fraction)
    return settings.default_budget(chars, run.pretrained is not None)


def _extend(run: TrainState) -> None:
    """Start a new schedule here, from the current learning rate of the old one (at least a quarter of the peak)."""
    old = run.schedule
    warm = max(run.step, old.first + math.ceil(old.warmup))  # in the warm-up nothing has decayed yet
    peak = old.peak_lr if run.step == 0 else max(old.lr(warm), run.config.peak_lr / 4)
    run.schedule = Schedule(first=run.step, last=None, peak_lr=peak)


def _end(run: TrainState, last: int, val_chars: int) -> None:
    run.schedule.end(last, run.config.eval_every, run.config.batch * run.config.seq, val_chars)


class Planner:
    """Converts a time budget to a number of steps soon after the start, and corrects it while there is time left.

    The pace of a machine changes when other processes use it. Each correction is stored in the plan, and so in the
    checkpoint. The schedule depends on the step and the plan alone, so a killed run continues with the plan it had.
    """

    def __init__(self, run: TrainState, windows: int, val_chars: int, clock: Callable[[], float]) -> None:
        self.run, self.windows, self.val_chars, self.clock = run, windows, val_chars, clock
        self.open = run.schedule.last is None  # a length given in steps is never corrected
        minutes, self.epochs = default_budget(run)
        self.budget_s = 60 * (run.schedule.minutes or minutes)
        self.start_s = self.lap_s = clock()
        self.lap_step = run.step
        self.next_s = self.pause_s = min(AFTER_S, self.budget_s / 20)

    def on_progress(self, event: events.Progress) -> Iterator[events.Event]:
        """Make or correct the plan, each time the elapsed time has grown by about half."""
        if not self.open:
            return
        now, run, schedule = self.clock(), self.run, self.run.schedule
        elapsed_s, done = now - self.start_s, run.step - self.lap_step
        late = schedule.last is not None and elapsed_s > UNTIL * self.budget_s
        most = self.epochs * self.windows if schedule.minutes is None else None
        short = most is not None and schedule.last is None and 10 * run.step >= most  # its last step would soon be past
        early = elapsed_s < self.next_s or (done < AFTER_STEPS and elapsed_s < self.budget_s / 2)
        if late or (early and not short):
            return
        share = 0.0 if schedule.last else EVALUATION_SHARE  # no evaluation runs before the first plan is made
        step_s = (now - self.lap_s) / done / (1 - share)
        last = run.step + max(0, round((self.budget_s - elapsed_s) / step_s))
        if most is not None:
            last = min(last, max(run.step, most))
        self.lap_s, self.lap_step = now, run.step
        self.next_s = elapsed_s + max(self.pause_s, min(elapsed_s, self.budget_s - elapsed_s) / 2)
        if schedule.last is None or abs(last - schedule.last) > SLACK * (schedule.last - run.step):
            _end(run, last, self.val_chars)
            note = f"{last:,} steps at {1 / step_s:.1f} per second, evaluated every {schedule.eval_every:,}"
            yield events.Planned(
                **events.position(event) | {"steps": last}, remaining_s=(last - run.step) * step_s, note=note
            )
