"""The one orchestrator: finds or begins a run, drives its training, saves it, lets it write previews, and passes every event on."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import arithmetic, checkpoint, corpus, evaluation, events, guard, ngram, state, training
from charlstm.choice import choose
from charlstm.clock import Stop
from charlstm.errors import CharlstmError, CorpusError, DivergenceError, SaveError, UsageError
from charlstm.keeping import Keeper, Lock
from charlstm.nn.config import ModelConfig
from charlstm.planning import Planner, take_budget
from charlstm.preview import Preview
from charlstm.runs import BEST_SUFFIX, SUFFIX, check_name, find_run
from charlstm.settings import LEARNING_RATES, Budget, Habits, TrainConfig
from charlstm.state import TrainState
from charlstm.vocabulary import describe_some

BASE_BYTES = 60_000_000
"""What Python, NumPy and the program itself take."""
TUNING_RATE = 0.25
"""Weights that another run has learned begin with this share of the usual learning rate."""
MOST_HELD_OUT = 1_000_000
"""No more characters than this are held out unless that is asked for: each evaluation reads them all."""
SAVING_SHARE = 0.01
"""Saving may take this share of the time."""


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
    lock: Lock
    idle: bool = False  # there is nothing to train
    mark: ngram.Mark | None = None

    def __post_init__(self) -> None:
        self.clock = self.stop.clock
        self.began_s = self.clock()

    @property
    def windows(self) -> int:
        """Steps in one pass over the text."""
        config = self.state.config
        return max(1, (len(self.train_ids) - 1) // (config.batch * config.seq))

    def run(self) -> Generator[events.Event, None, None]:
        """Train to the end of the plan, saving as it goes. Started comes first and Finished last; closed before, it saves and ends.

        Raises:
            SaveError: the first checkpoint could not be written, or the last one.
            DivergenceError: training could not be saved from diverging; the last good checkpoint is on disk.
        """
        try:
            yield from self._run()
        finally:
            self.lock.release()

    def _run(self) -> Iterator[events.Event]:
        yield self._started()
        keeper = self.keeper
        keeper.clean_up()
        if self.idle:
            yield self._finished("nothing to do")
            return
        self.stop.heard = True
        yield from keeper.save(self._where())
        if keeper.failure is not None:  # there is nothing to lose yet
            raise keeper.failure
        if self.state.best_step is None:
            keeper.drop_best()
        preview = Preview(self.state, self.habits, self.train_ids, self.clock)
        planner = Planner(self.state, self.windows, len(self.val_ids), self.clock)
        planned = self.state.plan.last
        next_save = self.clock() + self.habits.save_every_s
        try:
            for event in training.train(self.state, self.train_ids, self.val_ids, self.habits.threads, self.clock):
                if isinstance(event, events.Evaluated):
                    self._count()
                    yield replace(event, **self._mark_told())
                else:
                    yield event
                planned = self.state.plan.last
                if isinstance(event, events.Evaluated) and self.state.best_step == self.state.step:
                    yield from keeper.save_best(events.place(event))
                if self.stop.reason is not None:
                    break
                if isinstance(event, events.Progress):
                    yield from planner.look(event)
                    yield from preview.look(event)
                if self.clock() >= next_save or self.stop.save:
                    self.stop.save = False
                    before_s = self.clock()
                    yield from keeper.save(self._where())
                    now_s = self.clock()
                    next_save = now_s + max(self.habits.save_every_s, (now_s - before_s) / SAVING_SHARE)
        except DivergenceError as error:
            checkpoint.save_run(self.path, self.state)
            raise DivergenceError(f"{error}; the last good state is in {self.path}") from error
        except GeneratorExit:  # whoever drives it wants no more of it
            if self.state.best_step == self.state.step:
                list(keeper.save_best(self._where()))
            list(keeper.save(self._where()))
            self._check_saved()
            raise
        yield from keeper.save(self._where())
        self._check_saved()
        early = planned is not None and self.state.step < planned
        yield self._finished(self.stop.reason or ("no gain" if early else "done"))

    def _check_saved(self) -> None:
        if self.keeper.failure is not None:
            raise SaveError(f"the run ended at step {self.state.step:,} and was lost: {self.keeper.failure}")

    @cached_property
    def keeper(self) -> Keeper:
        """Who saves it."""
        return Keeper(self.name, self.path, self.state)

    def _where(self) -> dict[str, Any]:
        s = self.state
        return {
            "step": s.step,
            "steps": s.plan.last,
            "epoch": s.step / self.windows,
            "elapsed_s": self.clock() - self.began_s,
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
            memory_bytes=memory_bytes(s),
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
        path = self.keeper.best_path if s.best_step is not None and self.keeper.best_path.exists() else self.path
        return events.Finished(
            **self._where(),
            path=str(path),
            loss_nats=s.history[-1].loss_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            reason=reason,
            hint=self._hint(),
            **self._mark_told(),
        )

    def _count(self) -> None:
        """Find out what counting gives on the held-out text, once; a run that ends before its first evaluation never does."""
        if self.mark is None and len(self.val_ids):
            self.mark = ngram.best(self.train_ids, self.val_ids, len(self.state.vocabulary))

    def _mark_told(self) -> dict[str, Any]:
        return {"ngram_nats": self.mark.nats, "ngram_order": self.mark.order} if self.mark else {}

    def _letters_nats(self) -> float:
        judged = self.val_ids if len(self.val_ids) else self.train_ids
        return evaluation.letters_nats(self.train_ids, judged, len(self.state.vocabulary))

    def _hint(self) -> str:
        """One sentence on what would make the run better, or on why it has not learned; empty if nobody can tell yet."""
        s = self.state
        if not s.history:
            return ""
        last = s.history[-1]
        reached = last.loss_nats if s.best_val_nats is None else s.best_val_nats
        letters_nats = self._letters_nats()
        if min(reached, last.loss_nats) < letters_nats:
            rows = [(point.loss_nats, point.val_nats) for point in s.history if point.step > s.plan.first]
            return guard.what_next(rows, s.shape.dropout, self.name)
        why = guard.why_not_learned(s.step, s.guard.recoveries, last.update_ratio, last.saturated, s.config.dropout)
        return f"it has not learned more than the letter frequencies ({reached:.2f} against {letters_nats:.2f} nats): {why}"


def memory_bytes(run: TrainState) -> int:
    """What training a run takes: program, text, weights and buffers, and counting."""
    chars = run.text.chars
    held_out = int(chars * run.config.val_fraction)
    ids = chars * np.min_scalar_type(len(run.vocabulary) - 1).itemsize
    return BASE_BYTES + ids + run.memory_bytes + ngram.memory_bytes(chars - held_out if held_out else 0)


def start(
    corpora: Sequence[str],
    wishes: dict[str, Any],
    budget: Budget,
    folder: Path,
    habits: Habits,
    stop: Stop,
    *,
    name: str | None = None,
    encoding: str = "utf-8",
    if_exists: str = "fail",
    init_from: str | None = None,
) -> Session:
    """Begin a run on texts; where it exists already, refuse, go on with it, or overwrite it, as `if_exists` says.

    Args:
        corpora: words for `corpus.find`.
        wishes: settings of `TrainConfig`; those that are not given are chosen to suit text, budget and machine.
        budget: how long to train.
        folder: of runs.
        habits: what to do beside training.
        stop: set from outside to end it.
        name: of the run; that of the text if None.
        encoding: of the texts.
        if_exists: fail, resume or overwrite.
        init_from: a run to take the weights from.

    Raises:
        UsageError, CorpusError, CheckpointError, SaveError: see there.
    """
    sources = corpus.find(corpora)
    name = corpus.default_name(sources) if name is None else name
    check_name(name)
    path = folder / (name + SUFFIX)
    if path.exists():
        if if_exists == "fail":
            raise _exists(name, path)
        if if_exists == "resume":
            resumed = resume(name, budget, folder, habits, stop, sources=sources)
            resumed.notes += _left_out(wishes, resumed.state.config)
            return resumed
    origin = checkpoint.load(find_run(init_from, folder, best=True)).writer if init_from is not None else None
    text = corpus.read(sources, encoding)
    notes = []
    if origin is not None:
        wishes = _as_origin(wishes, origin.config, str(init_from))
        text, note = text.joined(origin.vocabulary)
        notes.append(f"weights from {init_from}: {note}")
    if len(text.ids) * TrainConfig.val_fraction > MOST_HELD_OUT:
        wishes = {"val_fraction": MOST_HELD_OUT / len(text.ids)} | wishes
    config = TrainConfig(**wishes)
    chars = len(text.split(config.val_fraction)[0])
    choice = choose(chars, len(text.vocabulary), budget, wishes, habits.threads)
    config = TrainConfig(**choice.settings)
    notes += [choice.why] if choice.why else []
    run, more_notes = state.begin(text, config, habits.threads, origin)
    notes += more_notes
    _make_folder(folder)
    lock = Lock(path)
    if if_exists == "fail" and path.exists():  # it came while the text was read
        lock.release()
        raise _exists(name, path)
    train_ids, val_ids = text.split(config.val_fraction)
    return _with_budget(Session(name, path, run, train_ids, val_ids, notes, False, habits, stop, lock), budget)


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
    lock = Lock(path)
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
            f"the text of {name!r} has changed ({_what_changed(loaded, text)}): "
            f"bring the old one back, or go on with the weights on the new one: "
            f"'charlstm train {shlex.join(sources)} --init-from {name} --name {name}-2'"
        )
    notes = []
    if loaded.arithmetic not in ("", arithmetic.fingerprint()):
        notes.append(
            "this machine rounds in another way than the one before (processor, NumPy or BLAS are others): "
            "the run goes on, but no longer to the same bytes"
        )
    loaded.arithmetic = arithmetic.fingerprint()
    train_ids, val_ids = text.split(loaded.config.val_fraction)
    return _with_budget(Session(name, path, loaded, train_ids, val_ids, notes, True, habits, stop, lock), budget)


def _what_changed(before: TrainState, now: corpus.Corpus) -> str:
    """In what a text is not the one that a run was trained on, as closely as its length, hash and characters tell."""
    then, known = before.text, set(before.vocabulary.characters)
    if now.info.chars > then.chars and now.begins_with(then):
        return f"{now.info.chars - then.chars:,} characters were added at its end"
    if now.info.chars != then.chars:
        return f"{then.chars:,} characters then, {now.info.chars:,} now"
    if new := [c for c in now.vocabulary.characters if c not in known]:
        return f"it has {describe_some(new)}, which it had not"
    return f"it is as long as it was, {then.chars:,} characters, and not the same"


def _exists(name: str, path: Path) -> UsageError:
    return UsageError(
        f"the run {name!r} exists already ({path}): go on with 'charlstm resume {name}', "
        f"or add --if-exists resume|overwrite, or choose another --name"
    )


def _left_out(wishes: dict[str, Any], config: TrainConfig) -> list[str]:
    """What was asked of a run that is not what it has."""
    told = [
        f"--{key.replace('_', '-')} {value} (it has {getattr(config, key)})"
        for key, value in wishes.items()
        if value not in (getattr(config, key), config.peak_lr if key == "lr" else None)
    ]
    return [f"left out, because a run goes on with the settings that it began with: {', '.join(told)}"] if told else []


def _as_origin(wishes: dict[str, Any], shape: ModelConfig, name: str) -> dict[str, Any]:
    """Wishes that suit weights that exist: their size is given, and the rate is a lower one than for random weights."""
    for option, value in (("hidden", shape.hidden), ("layers", shape.layers)):
        if wishes.get(option, value) != value:
            raise UsageError(f"--{option} {wishes[option]} is not what {name!r} has: leave it out, or take {value}")
    lr = LEARNING_RATES[wishes.get("optimizer", TrainConfig.optimizer)] * TUNING_RATE
    return {"lr": lr} | wishes | {"hidden": shape.hidden, "layers": shape.layers}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(
            f"the folder {folder} can't be made: {error.strerror}; name another with --checkpoints"
        ) from error


def _with_budget(session: Session, budget: Budget) -> Session:
    goes_on, note = take_budget(session.state, budget, session.windows, len(session.val_ids))
    unjudged = not goes_on and training.evaluation_is_due(
        session.state
    )  # it was killed between its last step and the look at that
    session.idle = not goes_on and not unjudged
    if note and not unjudged:
        session.notes.append(note)
    return session
