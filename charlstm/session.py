"""Sessions: start or resume a run, train it, save checkpoints, generate previews, and yield all events."""

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
"""Memory in bytes that Python, NumPy and charlstm use before any text is read."""
TUNING_RATE = 0.25
"""Factor on the default learning rate when a run starts from pretrained weights."""
MOST_HELD_OUT = 1_000_000
"""Default maximum of held-out characters, because every evaluation reads all of them."""
SAVING_SHARE = 0.01
"""Maximum fraction of the time to spend on saving."""


@dataclass
class Session:
    """A run that this process trains."""

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
    idle: bool = False  # nothing is left to train
    mark: ngram.Mark | None = None

    def __post_init__(self) -> None:
        self.clock = self.stop.clock
        self.began_s = self.clock()

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
        if keeper.failure is not None:  # nothing is lost by stopping now
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
        except GeneratorExit:  # the caller has closed the generator
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
            raise SaveError(f"the run ended at step {self.state.step:,} without being saved: {self.keeper.failure}")

    @cached_property
    def keeper(self) -> Keeper:
        """The object that saves the checkpoints."""
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
        """Compute the n-gram baseline, once.

        It is deferred to the first evaluation, so that a run that ends before does not pay for it.
        """
        if self.mark is None and len(self.val_ids):
            self.mark = ngram.best(self.train_ids, self.val_ids, len(self.state.vocabulary))

    def _mark_told(self) -> dict[str, Any]:
        return {"ngram_nats": self.mark.nats, "ngram_order": self.mark.order} if self.mark else {}

    def _letters_nats(self) -> float:
        judged = self.val_ids if len(self.val_ids) else self.train_ids
        return evaluation.letters_nats(self.train_ids, judged, len(self.state.vocabulary))

    def _hint(self) -> str:
        """Return one sentence on how to improve the run or why it has not learned, or "" if it is too early to tell."""
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
        return f"the model has not learned more than letter frequencies ({reached:.2f} vs {letters_nats:.2f} nats per character): {why}"


def memory_bytes(run: TrainState) -> int:
    """Estimate the memory in bytes that training takes: program, text, weights, buffers and n-gram baseline."""
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
    """Start a run on texts, or resume it if it exists and `if_exists` is "resume".

    Args:
        corpora: texts, in the form that `corpus.find` accepts.
        wishes: settings of `TrainConfig`; the others are chosen to suit the text, the budget and the machine.
        budget: how long to train.
        folder: the checkpoint folder.
        habits: options that do not affect the weights.
        stop: set its `reason` to end training.
        name: name of the run; None: the name of the text.
        encoding: encoding of the texts.
        if_exists: what to do if the run already exists: "fail", "resume" or "overwrite".
        init_from: a run whose weights to start from.

    Raises:
        UsageError: a setting is invalid, or the run already exists and `if_exists` is "fail".
        CorpusError: a text can't be found, read or decoded.
        CheckpointError: the file of the run, or of `init_from`, can't be used.
        LockedError: another process is training the run.
        CharlstmError: the checkpoint folder can't be created.
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
    if if_exists == "fail" and path.exists():  # another process created it while the text was read
        lock.release()
        raise _exists(name, path)
    train_ids, val_ids = text.split(config.val_fraction)
    return _with_budget(Session(name, path, run, train_ids, val_ids, notes, False, habits, stop, lock), budget)


def resume(
    run: str | None, budget: Budget, folder: Path, habits: Habits, stop: Stop, *, sources: Sequence[str] | None = None
) -> Session:
    """Resume a run from its file, on the text that it was trained on.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
        CorpusError: its text is missing or has changed.
        LockedError: another process is training it.
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
                f"the text of {name!r} came from standard input: pipe it into 'charlstm train - --name {name} --if-exists resume'"
            )
    text = corpus.read(corpus.find(sources), loaded.text.encoding)
    if text.info.sha256 != loaded.text.sha256:
        raise CorpusError(
            f"the text of {name!r} has changed ({_what_changed(loaded, text)}): "
            f"restore the old one, or train on the new one with "
            f"'charlstm train {shlex.join(sources)} --init-from {name} --name {name}-2'"
        )
    notes = []
    if loaded.arithmetic not in ("", arithmetic.fingerprint()):
        notes.append(
            "arithmetic here differs from the previous machine (CPU, NumPy or BLAS): "
            "training continues, but not bit-identically"
        )
    loaded.arithmetic = arithmetic.fingerprint()
    train_ids, val_ids = text.split(loaded.config.val_fraction)
    return _with_budget(Session(name, path, loaded, train_ids, val_ids, notes, True, habits, stop, lock), budget)


def _what_changed(before: TrainState, now: corpus.Corpus) -> str:
    """Describe how a text differs from the training text, as far as length, hash and characters reveal it."""
    then, known = before.text, set(before.vocabulary.characters)
    if now.info.chars > then.chars and now.begins_with(then):
        return f"{now.info.chars - then.chars:,} characters were appended"
    if now.info.chars != then.chars:
        return f"{then.chars:,} characters then, {now.info.chars:,} now"
    if new := [c for c in now.vocabulary.characters if c not in known]:
        return f"it now contains {describe_some(new)}"
    return f"it still has {then.chars:,} characters, but not the same ones"


def _exists(name: str, path: Path) -> UsageError:
    return UsageError(
        f"the run {name!r} already exists ({path}): continue it with 'charlstm resume {name}', "
        f"add --if-exists resume|overwrite, or choose another --name"
    )


def _left_out(wishes: dict[str, Any], config: TrainConfig) -> list[str]:
    """Return a note on requested settings that a resumed run ignores."""
    told = [
        f"--{key.replace('_', '-')} {value} (the run has {getattr(config, key)})"
        for key, value in wishes.items()
        if value not in (getattr(config, key), config.peak_lr if key == "lr" else None)
    ]
    return [f"ignored, because a resumed run keeps its settings: {', '.join(told)}"] if told else []


def _as_origin(wishes: dict[str, Any], shape: ModelConfig, name: str) -> dict[str, Any]:
    """Adapt settings to pretrained weights: take their size, and lower the default learning rate.

    Raises:
        UsageError: the settings ask for another size.
    """
    for option, value in (("hidden", shape.hidden), ("layers", shape.layers)):
        if wishes.get(option, value) != value:
            raise UsageError(
                f"--{option} {wishes[option]} does not match the weights of {name!r}: leave it out, or use {value}"
            )
    lr = LEARNING_RATES[wishes.get("optimizer", TrainConfig.optimizer)] * TUNING_RATE
    return {"lr": lr} | wishes | {"hidden": shape.hidden, "layers": shape.layers}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(
            f"the folder {folder} can't be created ({error.strerror}): choose another with --checkpoints"
        ) from error


def _with_budget(session: Session, budget: Budget) -> Session:
    goes_on, note = take_budget(session.state, budget, session.windows, len(session.val_ids))
    # A run that was killed between its last step and the evaluation of that step still owes the evaluation.
    unjudged = not goes_on and training.evaluation_is_due(session.state)
    session.idle = not goes_on and not unjudged
    if note and not unjudged:
        session.notes.append(note)
    return session
