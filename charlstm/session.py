"""A session: one process trains one run, saves checkpoints, generates previews, and yields all events."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from charlstm import events
from charlstm.errors import CharlstmError, DivergenceError, SaveError
from charlstm.inference import evaluation, ngram
from charlstm.settings import RunOptions
from charlstm.storage.lock import Lock
from charlstm.storage.runs import RunFiles
from charlstm.storage.saver import CheckpointSaver
from charlstm.text.ids import MappedIds, TextIds
from charlstm.text.sources import summary
from charlstm.training import advice, loop
from charlstm.training.budget import Planner
from charlstm.training.control import Stop
from charlstm.training.preview import Preview
from charlstm.training.state import TrainState, memory_bytes

SAVING_SHARE = 0.01
"""Maximum fraction of the time to spend on saving."""
LEARNED = 0.97
"""A model has learned something if its loss is below this fraction of that of the letter frequencies, which a new model starts from."""


@dataclass
class Session:
    """A run that this process trains."""

    files: RunFiles
    state: TrainState
    train_ids: TextIds
    val_ids: TextIds
    notes: list[str]
    resumed: bool
    options: RunOptions
    stop: Stop
    lock: Lock
    idle: bool = False  # nothing is left to train
    baseline: ngram.NgramBaseline | None = None

    def __post_init__(self) -> None:
        self.clock = self.stop.clock
        self.began_s = self.clock()

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.files.name

    @property
    def path(self) -> Path:
        """The path of its latest state."""
        return self.files.latest

    @property
    def windows(self) -> int:
        """The number of steps per epoch."""
        config = self.state.config
        return max(1, (len(self.train_ids) - 1) // (config.batch * config.seq))

    def run(self) -> Generator[events.Event, None, None]:
        """Train to the end of the schedule, yielding events from Started to Finished.

        It saves checkpoints as it trains. If the generator is closed early, it saves the run and ends.

        Raises:
            SaveError: the first or the last checkpoint can't be written.
            DivergenceError: training diverged and no recovery is left; the last good state is on disk.
            LockedError: somebody removed the lock file, and another process took the run over.
        """
        steps = self._holding_the_lock()
        next(steps)  # into its try: Python 3.13 clears nothing when a generator is closed that never began
        return steps

    def _holding_the_lock(self) -> Generator[Any, None, None]:
        try:
            yield
            yield from self._run()
        finally:
            self.lock.release()

    def _run(self) -> Iterator[events.Event]:
        yield self._started()
        saver = self.saver
        saver.clean_up()
        if not (self.idle and self.resumed):
            self.stop.armed = True
            yield from saver.save(self._position())
            if saver.failure is not None:  # nothing is lost by stopping now
                raise saver.failure
            saver.drop_old_best()
        if self.idle:
            yield self._finished("nothing to do")
            return
        preview = Preview(self.state, self.options, self.train_ids, self.clock)
        planner = Planner(self.state, self.windows, len(self.val_ids), self.clock)
        planned = self.state.schedule.last
        next_save = self.clock() + self.options.save_every_s
        try:
            for event in loop.train(self.state, self.train_ids, self.val_ids, self.options.cores, self._elapsed_s):
                if isinstance(event, events.Evaluated):
                    self._count()
                    yield replace(event, **self._baseline_fields())
                else:
                    yield event
                planned = self.state.schedule.last
                if isinstance(event, events.Evaluated) and self.state.best_step == self.state.step:
                    yield from saver.save_best(events.position(event))
                if self.stop.reason is not None:
                    break
                if isinstance(event, events.Progress):
                    self.lock.keep()
                    yield from planner.on_progress(event)
                    yield from preview.on_progress(event)
                if self.clock() >= next_save or self.stop.save:
                    self.stop.save = False
                    before_s = self.clock()
                    yield from saver.save(self._position())
                    now_s = self.clock()
                    next_save = now_s + max(self.options.save_every_s, (now_s - before_s) / SAVING_SHARE)
        except DivergenceError as error:
            saver.save_run()
            raise DivergenceError(f"{error}; the last good state is in {self.path}") from error
        except MemoryError as error:  # in mid-step the state is not one to save
            raise self._out_of_memory() from error
        except GeneratorExit:  # the caller has closed the generator
            if self.state.best_step == self.state.step:
                list(saver.save_best(self._position()))
            list(saver.save(self._position()))
            self._check_saved()
            raise
        yield from saver.save(self._position())
        self._check_saved()
        early = planned is not None and self.state.step < planned
        yield self._finished(self.stop.reason or ("early_stop" if early else "done"))

    def _out_of_memory(self) -> CharlstmError:
        """Remove a run that has not taken a step, unless it started from its own weights; return what to tell the user."""
        if self.state.step == 0 and not self.resumed:
            pretrained = self.state.pretrained
            if pretrained is None or pretrained.name != self.name:
                self.path.unlink(missing_ok=True)
            return CharlstmError("out of memory before the first step: lower `hidden`, `layers` or `batch`")
        return CharlstmError(
            f"out of memory at step {self.state.step:,}: free some, and continue from the last save with "
            f"'charlstm resume {self.files.typed}'"
        )

    def _check_saved(self) -> None:
        if self.saver.failure is not None:
            raise SaveError(f"the run ended at step {self.state.step:,} without being saved: {self.saver.failure}")

    @cached_property
    def saver(self) -> CheckpointSaver:
        """The object that saves the checkpoints."""
        return CheckpointSaver(self.files, self.state, self.lock)

    def _elapsed_s(self) -> float:
        """Seconds since the session began: the one clock of all its events."""
        return self.clock() - self.began_s

    def _position(self) -> dict[str, Any]:
        s = self.state
        return {
            "step": s.step,
            "steps": s.schedule.last,
            "epoch": s.step / self.windows,
            "elapsed_s": self._elapsed_s(),
        }

    def _started(self) -> events.Started:
        s, V = self.state, len(self.state.vocabulary)
        return events.Started(
            **self._position(),
            run=self.name,
            path=str(self.path),
            resumed=self.resumed,
            text=summary(s.text.sources, lambda source: Path(source).name),
            chars=s.text.chars,
            val_chars=len(self.val_ids),
            val_text=summary(s.text.held_out.sources, lambda source: Path(source).name) if s.text.held_out else "",
            vocabulary=V,
            hidden=s.shape.hidden,
            layers=s.shape.layers,
            parameters=s.parameters,
            memory_bytes=memory_bytes(s, isinstance(self.train_ids, MappedIds)),
            batch=s.config.batch,
            seq=s.config.seq,
            optimizer=s.config.optimizer,
            lr=s.schedule.peak_lr,
            clip=s.config.clip,
            uniform_nats=float(np.log(V)),
            unigram_nats=self._unigram_nats(self._judged_ids),
            val_nats=s.history[-1].val_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            notes=tuple(self.notes),
        )

    def _finished(self, reason: str) -> events.Finished:
        s = self.state
        path = self.files.best if s.best_step is not None and self.files.best.exists() else self.path
        return events.Finished(
            **self._position(),
            path=str(path),
            loss_nats=s.history[-1].loss_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            reason=reason,
            hint=self._hint(),
            **self._baseline_fields(),
        )

    def _count(self) -> None:
        """Compute the n-gram baseline, once.

        It is deferred to the first evaluation, so that a run that ends before does not pay for it.
        """
        if self.baseline is None and len(self.val_ids):
            self.baseline = ngram.best(self.train_ids, self.val_ids, len(self.state.vocabulary))

    def _baseline_fields(self) -> dict[str, Any]:
        return {"ngram_nats": self.baseline.nats, "ngram_order": self.baseline.order} if self.baseline else {}

    @property
    def _judged_ids(self) -> TextIds:
        """The held-out text, or the training text if nothing is held out."""
        return self.val_ids if len(self.val_ids) else self.train_ids

    def _unigram_nats(self, ids: TextIds) -> float:
        return evaluation.unigram_nats(self.train_ids, ids, len(self.state.vocabulary))

    def _hint(self) -> str:
        """Return one sentence on how to improve the run or why it has not learned, or "" if it is too early to tell."""
        s = self.state
        if not s.history:
            return ""
        last = s.history[-1]
        reached = last.loss_nats if s.best_val_nats is None else s.best_val_nats
        unigram_nats = self._unigram_nats(self._judged_ids)
        if reached < LEARNED * unigram_nats or last.loss_nats < LEARNED * self._unigram_nats(self.train_ids):
            rows = [(row.loss_nats, row.val_nats) for row in s.history if row.step > s.schedule.first]
            return advice.advise(rows, s.shape.dropout, self.files.typed)
        why = advice.explain_failure(s.step, s.guard.recoveries, last.update_ratio, last.saturated, s.config.dropout)
        return f"the model has not learned more than letter frequencies ({reached:.2f} vs {unigram_nats:.2f} nats per character): {why}"
