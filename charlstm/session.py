"""The one orchestrator: finds or begins a run, drives its training, saves it, lets it write previews, and passes every event on."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import checkpoint, corpus, evaluation, events, guard, sampling, state, training
from charlstm.errors import CharlstmError, CorpusError, DivergenceError, UsageError
from charlstm.settings import DEFAULT_MINUTES, DEFAULT_PASSES, Budget, SampleConfig, TrainConfig, require
from charlstm.state import TrainState

SUFFIX, BEST_SUFFIX = ".npz", ".best.npz"
PLAN_AFTER_S = 2.0
"""A time budget becomes a number of steps after so many seconds of training (or a twentieth of it), and at least so many …"""
PLAN_AFTER_STEPS = 10
PLAN_SLACK, PLAN_UNTIL = 0.05, 0.95
"""… steps; after that it is corrected where it is off by more than the first share, until the second share of the time is gone."""
BASE_BYTES = 60_000_000
"""What Python, NumPy and the program itself take."""
SAVING_SHARE = 0.01
PREVIEW_SHARE = 0.008
"""Saving, and writing previews, may take these shares of the time; with what drawing takes, a screen costs less than 2 %."""
PREVIEW_CHARS = 400
PREVIEW_PIECE_S = 0.004


@dataclass
class Stop:
    """Set from outside (a signal handler) to end training after the step in progress."""

    reason: str | None = None


@dataclass(frozen=True)
class Habits:
    """What a run does beside training; none of it changes a weight."""

    save_every_s: float = 60.0
    preview_every_s: float = 10.0
    preview_temperature: float = 0.8
    stream_preview: bool = False  # piece by piece as it is made, instead of whole
    threads: int = 1

    def __post_init__(self) -> None:
        require("--save-every", self.save_every_s, 0, None)
        require("--preview-every", self.preview_every_s, 0, None)


# -- runs by name -----------------------------------------------------------------------------------------------------


def run_names(folder: Path) -> list[str]:
    """The runs in a checkpoint folder, newest first; a model that came with the program stands behind those made here."""
    changed: dict[str, float] = {}
    for path in folder.glob("*" + SUFFIX) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        name = path.name.removesuffix(BEST_SUFFIX).removesuffix(SUFFIX)
        changed[name] = max(changed.get(name, 0.0), path.stat().st_mtime)
    return sorted(changed, key=lambda name: (name != corpus.BUILT_IN, changed[name]), reverse=True)


def find_run(run: str | None, folder: Path, *, best: bool) -> Path:
    """The file of a run: by name, by path, or with None the newest there is.

    Args:
        best: prefer NAME.best.npz, as sampling does, to NAME.npz.

    Raises:
        UsageError: there is no such run; names those that come nearest.
    """
    names = run_names(folder)
    shipped = corpus.shipped("checkpoints", corpus.BUILT_IN + SUFFIX)
    if run is None:
        if names:
            run = names[0]
        elif best and shipped.exists():
            return shipped
        else:
            raise UsageError(f"there is no run in {folder} yet: type 'charlstm train CORPUS' to make one")
    if run.endswith(SUFFIX) or "/" in run:
        path = Path(run).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no file {run}: give a run's name or the path of an {SUFFIX} file")
        return path
    endings = (BEST_SUFFIX, SUFFIX) if best else (SUFFIX,)
    for ending in endings:
        if (folder / (run + ending)).is_file():
            return folder / (run + ending)
    if best and run == corpus.BUILT_IN and shipped.exists():
        return shipped
    near = difflib.get_close_matches(run, names, n=3) or names[:5]
    hint = f"did you mean {' or '.join(near)}?" if near else "type 'charlstm train CORPUS' to make one"
    raise UsageError(f"there is no run {run!r} in {folder}: {hint}")


def check_name(name: str) -> None:
    """Refuse a run's name that could not be a file's.

    Raises:
        UsageError: says what a name may be.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\\0") or name.endswith(".best"):
        raise UsageError(f"{name!r} can't be the name of a run: take letters, digits, '-' and '_' (--name)")


# -- begin or go on ---------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """A run in the hands of this process."""

    name: str
    path: Path
    state: TrainState
    train_ids: NDArray[Any]
    val_ids: NDArray[Any]
    notes: list[str]
    resumed: bool
    habits: Habits
    stop: Stop
    idle: bool = False  # there is nothing to train
    began_s: float = field(default_factory=time.monotonic)

    @property
    def windows(self) -> int:
        """Steps in one pass over the text."""
        config = self.state.config
        return max(1, (len(self.train_ids) - 1) // (config.batch * config.seq))

    @property
    def best_path(self) -> Path:
        """Where the model of the lowest validation loss is kept."""
        return self.path.with_name(self.name + BEST_SUFFIX)

    def run(self) -> Iterator[events.Event]:
        """Train to the end of the plan, saving as it goes. Started comes first and Finished last.

        Raises:
            SaveError: a checkpoint could not be written.
            DivergenceError: training could not be saved from diverging; the last good checkpoint is on disk.
        """
        yield self._started()
        if self.idle:
            yield self._finished("nothing to do")
            return
        yield from self._save()
        preview, planner = _Preview(self.state, self.habits), _Planner(self)
        next_save = time.monotonic() + self.habits.save_every_s
        try:
            for event in training.train(self.state, self.train_ids, self.val_ids, self.habits.threads):
                yield event
                if isinstance(event, events.Evaluated) and self.state.best_step == self.state.step:
                    checkpoint.save_model(self.best_path, self.state)
                    yield events.Saved(**_place(event), path=str(self.best_path), best=True)
                if self.stop.reason is not None:
                    break
                if isinstance(event, events.Progress):
                    yield from planner.look(event)
                    yield from preview.look(event)
                if time.monotonic() >= next_save:
                    before_s = time.monotonic()
                    yield from self._save()
                    now_s = time.monotonic()
                    next_save = now_s + max(self.habits.save_every_s, (now_s - before_s) / SAVING_SHARE)
        except DivergenceError as error:
            checkpoint.save_run(self.path, self.state)
            raise DivergenceError(f"{error}; the last good state is in {self.path}") from error
        yield from self._save()
        yield self._finished(self.stop.reason or "done")

    def _save(self) -> Iterator[events.Event]:
        checkpoint.save_run(self.path, self.state)
        yield events.Saved(**self._where(), path=str(self.path), best=False)

    def _where(self) -> dict[str, Any]:
        s = self.state
        return {
            "step": s.step,
            "steps": s.plan.last,
            "epoch": s.step / self.windows,
            "elapsed_s": time.monotonic() - self.began_s,
        }

    def _started(self) -> events.Started:
        s, V = self.state, len(self.state.vocabulary)
        return events.Started(
            **self._where(),
            run=self.name,
            path=str(self.path),
            resumed=self.resumed,
            text=", ".join(Path(source).name for source in s.text.sources),
            chars=s.text.chars,
            val_chars=len(self.val_ids),
            vocabulary=V,
            hidden=s.shape.hidden,
            layers=s.shape.layers,
            parameters=s.parameters,
            memory_bytes=BASE_BYTES + self.train_ids.nbytes + self.val_ids.nbytes + s.memory_bytes,
            batch=s.config.batch,
            seq=s.config.seq,
            optimizer=s.config.optimizer,
            lr=s.plan.peak_lr,
            clip=s.config.clip,
            chance_nats=float(np.log(V)),
            letters_nats=self._letters_nats(),
            val_nats=s.history[-1].val_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            notes=tuple(self.notes),
        )

    def _finished(self, reason: str) -> events.Finished:
        s = self.state
        path = self.best_path if s.best_step is not None and self.best_path.exists() else self.path
        return events.Finished(
            **self._where(),
            path=str(path),
            loss_nats=s.history[-1].loss_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            reason=reason,
            hint=self._hint(),
        )

    def _letters_nats(self) -> float:
        judged = self.val_ids if len(self.val_ids) else self.train_ids
        return evaluation.letters_nats(self.train_ids, judged, len(self.state.vocabulary))

    def _hint(self) -> str:
        """One sentence on why the run has not learned; empty if it has, or if nobody can tell yet."""
        s = self.state
        if not s.history:
            return ""
        last = s.history[-1]
        reached = last.loss_nats if s.best_val_nats is None else s.best_val_nats
        letters_nats = self._letters_nats()
        if reached < letters_nats:
            return ""
        why = guard.why_not_learned(s.step, s.guard.recoveries, last.update_ratio, last.saturated, s.config.dropout)
        return f"it has not learned more than the letter frequencies ({reached:.2f} against {letters_nats:.2f} nats): {why}"


def start(
    corpora: Sequence[str],
    config: TrainConfig,
    budget: Budget,
    folder: Path,
    habits: Habits,
    stop: Stop,
    *,
    name: str | None = None,
    encoding: str = "utf-8",
    if_exists: str = "fail",
) -> Session:
    """Begin a run on texts; where it exists already, refuse, go on with it, or overwrite it, as `if_exists` says.

    Raises:
        UsageError, CorpusError, SaveError: see there.
    """
    sources = corpus.find(corpora)
    name = corpus.default_name(sources) if name is None else name
    check_name(name)
    path = folder / (name + SUFFIX)
    if path.exists():
        if if_exists == "fail":
            raise UsageError(
                f"the run {name!r} exists already ({path}): go on with 'charlstm resume {name}', "
                f"or add --if-exists resume|overwrite, or choose another --name"
            )
        if if_exists == "resume":
            return resume(name, budget, folder, habits, stop, sources=sources)
    text = corpus.read(sources, encoding)
    run, notes = state.begin(text, config, habits.threads)
    _make_folder(folder)
    path.with_name(name + BEST_SUFFIX).unlink(missing_ok=True)
    train_ids, val_ids = text.split(config.val_fraction)
    session = Session(name, path, run, train_ids, val_ids, notes, False, habits, stop)
    _set_budget(session, budget)
    return session


def resume(
    run: str | None, budget: Budget, folder: Path, habits: Habits, stop: Stop, *, sources: Sequence[str] | None = None
) -> Session:
    """Go on with a run from its file, on the text that it was trained on.

    Raises:
        UsageError: there is no such run.
        CheckpointError: its file can't be used.
        CorpusError: its text is gone or has changed.
    """
    path = find_run(run, folder, best=False)
    if path.name.endswith(BEST_SUFFIX) and path.with_name(path.name.removesuffix(BEST_SUFFIX) + SUFFIX).exists():
        path = path.with_name(path.name.removesuffix(BEST_SUFFIX) + SUFFIX)
    loaded = checkpoint.load_run(path)
    name = path.name.removesuffix(SUFFIX)
    if sources is None:
        sources = loaded.text.sources
        if corpus.STDIN in sources:
            raise UsageError(
                f"the text of {name!r} came from standard input: pipe it again, 'charlstm train - --name {name} --if-exists resume'"
            )
    text = corpus.read(corpus.find(sources), loaded.text.encoding)
    if text.info.sha256 != loaded.text.sha256:
        raise CorpusError(
            f"the text of {name!r} has changed ({loaded.text.chars:,} characters then, {text.info.chars:,} now): "
            f"bring the old one back, or train a new run with --name"
        )
    train_ids, val_ids = text.split(loaded.config.val_fraction)
    session = Session(name, path, loaded, train_ids, val_ids, [], True, habits, stop)
    _set_budget(session, budget)
    return session


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(
            f"the folder {folder} can't be made: {error.strerror}; name another with --checkpoints"
        ) from error


# -- how long ---------------------------------------------------------------------------------------------------------


def _set_budget(session: Session, budget: Budget) -> None:
    """Turn a budget into the plan's last step, at once or, for minutes, once the speed is known."""
    run = session.state
    wanted = budget.steps
    if budget.epochs is not None:
        wanted = max(1, round(budget.epochs * session.windows))
    if wanted is not None and wanted <= run.step:
        session.idle = True
        session.notes.append(f"the run is at step {run.step:,} already, and {wanted:,} were asked for")
    elif wanted is not None:
        if wanted != run.plan.last:
            _prolong(run)
            _end_plan(session, wanted)
    elif budget.minutes is not None:
        _prolong(run)
        run.plan.minutes = budget.minutes
    elif run.plan.last is None and run.plan.minutes is None:
        session.notes.append(
            f"no budget was given: {DEFAULT_MINUTES:g} minutes, or {DEFAULT_PASSES} passes where that is sooner "
            f"(--minutes, --epochs, --steps)"
        )
    elif run.plan.last is not None and run.step >= run.plan.last:
        session.idle = True
        session.notes.append("the run is finished: add --minutes, --epochs or --steps to train it further")


def _prolong(run: TrainState) -> None:
    """A new stretch from here, from the rate that the schedule had come down to (a quarter of the peak at least)."""
    peak = run.plan.peak_lr if run.step == 0 else max(run.plan.lr(run.step), run.config.peak_lr / 4)
    run.plan = state.Plan(first=run.step, last=None, peak_lr=peak)


def _end_plan(session: Session, last: int) -> None:
    config = session.state.config
    session.state.plan.end(last, config.eval_every, config.batch * config.seq, len(session.val_ids))


class _Planner:
    """Turns a time budget into a number of steps soon after the start, and corrects it while there is time left.

    The pace of a machine changes when others use it too. Each correction goes into the plan and so into the file: the schedule depends
    on the step and the plan alone, and a run that was killed goes on with the plan that it had.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        run = session.state
        self.open = run.plan.last is None  # a length in steps stands as it is
        self.budget_s = 60 * (run.plan.minutes or DEFAULT_MINUTES)
        self.began_s = self.mark_s = time.monotonic()
        self.mark_step = run.step
        self.next_s = min(PLAN_AFTER_S, self.budget_s / 20)

    def look(self, event: events.Progress) -> Iterator[events.Event]:
        """Plan, or correct the plan, whenever the time gone has grown by half."""
        now = time.monotonic()
        elapsed_s, run = now - self.began_s, self.session.state
        done = run.step - self.mark_step
        if run.plan.last is not None and elapsed_s > PLAN_UNTIL * self.budget_s:
            return
        if not self.open or elapsed_s < self.next_s or (done < PLAN_AFTER_STEPS and elapsed_s < self.budget_s / 2):
            return
        share = 0.0 if run.plan.last else state.EVALUATION_SHARE  # the first stretch had no evaluation in it
        step_s = (now - self.mark_s) / done / (1 - share)
        last = run.step + max(1, round((self.budget_s - elapsed_s) / step_s))
        if run.plan.minutes is None:
            last = min(last, max(run.step + 1, DEFAULT_PASSES * self.session.windows))
        self.mark_s, self.mark_step = now, run.step
        self.next_s = elapsed_s + max(PLAN_AFTER_S, min(elapsed_s, self.budget_s - elapsed_s) / 2)
        if run.plan.last is None or abs(last - run.plan.last) > PLAN_SLACK * (run.plan.last - run.step):
            _end_plan(self.session, last)
            note = f"{last:,} steps at {1 / step_s:.1f} a second, an evaluation every {run.plan.eval_every:,}"
            yield events.Planned(**_place(event) | {"steps": last}, remaining_s=(last - run.step) * step_s, note=note)


# -- previews ---------------------------------------------------------------------------------------------------------


class _Preview:
    """Text written by the model while it learns; has its own state and random generator, so that it can't disturb a run."""

    def __init__(self, run: TrainState, habits: Habits) -> None:
        self.run, self.habits = run, habits
        self.rng = np.random.default_rng(run.config.seed)
        self.settings = SampleConfig(temperature=habits.preview_temperature, length=PREVIEW_CHARS)
        self.text: Iterator[list[str]] | None = None
        self.next_piece = self.next_fresh = time.monotonic()

    def look(self, event: events.Progress) -> Iterator[events.Event]:
        """Write on, if it is time to."""
        now = time.monotonic()
        if self.habits.preview_every_s <= 0 or now < self.next_piece:
            return
        fresh = now >= self.next_fresh
        if fresh:
            writer = sampling.Writer(self.run.shape, self.run.params, self.run.vocabulary)
            self.text = sampling.generate(writer, self.settings, [self.rng])
            self.next_fresh = now + self.habits.preview_every_s
        text = self._piece(now + PREVIEW_PIECE_S if self.habits.stream_preview else None)
        cost = time.monotonic() - now
        wait = cost / PREVIEW_SHARE
        self.next_piece = time.monotonic() + (
            wait if self.habits.stream_preview else max(wait, self.habits.preview_every_s)
        )
        if text:
            yield events.Sampled(**_place(event), text=text, fresh=fresh)

    def _piece(self, until: float | None) -> str:
        """What can be written until then; with None, all of it."""
        pieces: list[str] = []
        for shown in self.text or ():
            pieces += shown
            if until is not None and time.monotonic() >= until:
                break
        return "".join(pieces)


def _place(event: events.Event) -> dict[str, Any]:
    """Where another event was, for one that belongs to the same moment."""
    return {"step": event.step, "steps": event.steps, "epoch": event.epoch, "elapsed_s": event.elapsed_s}
