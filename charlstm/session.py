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

from charlstm import events
from charlstm.errors import CharlstmError, CorpusError, DivergenceError, SaveError, UsageError
from charlstm.inference import evaluation, ngram
from charlstm.nn.config import ModelConfig
from charlstm.settings import LEARNING_RATES, Budget, RunOptions, TextOptions, TrainConfig
from charlstm.storage import checkpoint
from charlstm.storage.lock import Lock
from charlstm.storage.runs import BEST_SUFFIX, SUFFIX, check_name, find_run
from charlstm.storage.saver import CheckpointSaver
from charlstm.text import corpus
from charlstm.text.sources import STDIN, default_name, find
from charlstm.text.vocabulary import describe_some
from charlstm.training import advice, loop
from charlstm.training.autoconfig import choose
from charlstm.training.budget import Planner, take_budget
from charlstm.training.control import Stop
from charlstm.training.fingerprint import fingerprint
from charlstm.training.preview import Preview
from charlstm.training.state import TrainState, begin, memory_bytes

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
    options: RunOptions
    stop: Stop
    lock: Lock
    idle: bool = False  # nothing is left to train
    baseline: ngram.NgramBaseline | None = None

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
        saver = self.saver
        saver.clean_up()
        if self.idle:
            yield self._finished("nothing to do")
            return
        self.stop.armed = True
        yield from saver.save(self._position())
        if saver.failure is not None:  # nothing is lost by stopping now
            raise saver.failure
        if self.state.best_step is None:
            saver.drop_best()
        preview = Preview(self.state, self.options, self.train_ids, self.clock)
        planner = Planner(self.state, self.windows, len(self.val_ids), self.clock)
        planned = self.state.schedule.last
        next_save = self.clock() + self.options.save_every_s
        try:
            for event in loop.train(self.state, self.train_ids, self.val_ids, self.options.threads, self.clock):
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
                    yield from planner.on_progress(event)
                    yield from preview.on_progress(event)
                if self.clock() >= next_save or self.stop.save:
                    self.stop.save = False
                    before_s = self.clock()
                    yield from saver.save(self._position())
                    now_s = self.clock()
                    next_save = now_s + max(self.options.save_every_s, (now_s - before_s) / SAVING_SHARE)
        except DivergenceError as error:
            checkpoint.save_run(self.path, self.state)
            raise DivergenceError(f"{error}; the last good state is in {self.path}") from error
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

    def _check_saved(self) -> None:
        if self.saver.failure is not None:
            raise SaveError(f"the run ended at step {self.state.step:,} without being saved: {self.saver.failure}")

    @cached_property
    def saver(self) -> CheckpointSaver:
        """The object that saves the checkpoints."""
        return CheckpointSaver(self.name, self.path, self.state)

    def _position(self) -> dict[str, Any]:
        s = self.state
        return {
            "step": s.step,
            "steps": s.schedule.last,
            "epoch": s.step / self.windows,
            "elapsed_s": self.clock() - self.began_s,
        }

    def _started(self) -> events.Started:
        s, V = self.state, len(self.state.vocabulary)
        return events.Started(
            **self._position(),
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
            lr=s.schedule.peak_lr,
            clip=s.config.clip,
            uniform_nats=float(np.log(V)),
            unigram_nats=self._unigram_nats(),
            val_nats=s.history[-1].val_nats if s.history else None,
            best_val_nats=s.best_val_nats,
            notes=tuple(self.notes),
        )

    def _finished(self, reason: str) -> events.Finished:
        s = self.state
        path = self.saver.best_path if s.best_step is not None and self.saver.best_path.exists() else self.path
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

    def _unigram_nats(self) -> float:
        judged = self.val_ids if len(self.val_ids) else self.train_ids
        return evaluation.unigram_nats(self.train_ids, judged, len(self.state.vocabulary))

    def _hint(self) -> str:
        """Return one sentence on how to improve the run or why it has not learned, or "" if it is too early to tell."""
        s = self.state
        if not s.history:
            return ""
        last = s.history[-1]
        reached = last.loss_nats if s.best_val_nats is None else s.best_val_nats
        unigram_nats = self._unigram_nats()
        if min(reached, last.loss_nats) < unigram_nats:
            rows = [(row.loss_nats, row.val_nats) for row in s.history if row.step > s.schedule.first]
            return advice.advise(rows, s.shape.dropout, self.name)
        why = advice.explain_failure(s.step, s.guard.recoveries, last.update_ratio, last.saturated, s.config.dropout)
        return f"the model has not learned more than letter frequencies ({reached:.2f} vs {unigram_nats:.2f} nats per character): {why}"


def start(
    corpora: Sequence[str],
    overrides: dict[str, Any],
    budget: Budget,
    folder: Path,
    options: RunOptions,
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
    sources = find(corpora)
    name = default_name(sources) if name is None else name
    check_name(name)
    path = folder / (name + SUFFIX)
    if path.exists():
        if if_exists == "fail":
            raise _exists(name, path)
        if if_exists == "resume":
            resumed = resume(name, budget, folder, options, stop, sources=sources)
            resumed.notes += _left_out(overrides, resumed.state.config)
            return resumed
    pretrained = checkpoint.load(find_run(init_from, folder, best=True)).char_model if init_from is not None else None
    text = corpus.read(sources, TextOptions(encoding))
    notes = []
    if pretrained is not None:
        overrides = _as_pretrained(overrides, pretrained.config, str(init_from))
        text, note = text.joined(pretrained.vocabulary)
        notes.append(f"weights from {init_from}: {note}")
    if len(text.ids) * TrainConfig.val_fraction > MOST_HELD_OUT:
        overrides = {"val_fraction": MOST_HELD_OUT / len(text.ids)} | overrides
    config = TrainConfig(**overrides)
    chars = len(text.split(config.val_fraction)[0])
    choice = choose(chars, len(text.vocabulary), budget, overrides, options.threads)
    config = TrainConfig(**choice.settings)
    notes += [choice.why] if choice.why else []
    run, more_notes = begin(text, config, options.threads, pretrained)
    notes += more_notes
    _make_folder(folder)
    lock = Lock(path)
    if if_exists == "fail" and path.exists():  # another process created it while the text was read
        lock.release()
        raise _exists(name, path)
    train_ids, val_ids = text.split(config.val_fraction)
    return _with_budget(Session(name, path, run, train_ids, val_ids, notes, False, options, stop, lock), budget)


def resume(
    run: str | None,
    budget: Budget,
    folder: Path,
    options: RunOptions,
    stop: Stop,
    *,
    sources: Sequence[str] | None = None,
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
        if STDIN in sources:
            raise UsageError(
                f"the text of {name!r} came from standard input: pipe it into 'charlstm train - --name {name} --if-exists resume'"
            )
    text = corpus.read(find(sources), loaded.text.options)
    if text.info.sha256 != loaded.text.sha256:
        raise CorpusError(
            f"the text of {name!r} has changed ({_what_changed(loaded, text)}): "
            f"restore the old one, or train on the new one with "
            f"'charlstm train {shlex.join(sources)} --init-from {name} --name {name}-2'"
        )
    notes = []
    if loaded.arithmetic not in ("", fingerprint()):
        notes.append(
            "arithmetic here differs from the previous machine (CPU, NumPy or BLAS): "
            "training continues, but not bit-identically"
        )
    loaded.arithmetic = fingerprint()
    train_ids, val_ids = text.split(loaded.config.val_fraction)
    return _with_budget(Session(name, path, loaded, train_ids, val_ids, notes, True, options, stop, lock), budget)


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


def _left_out(overrides: dict[str, Any], config: TrainConfig) -> list[str]:
    """Return a note on requested settings that a resumed run ignores."""
    told = [
        f"--{key.replace('_', '-')} {value} (the run has {getattr(config, key)})"
        for key, value in overrides.items()
        if value not in (getattr(config, key), config.peak_lr if key == "lr" else None)
    ]
    return [f"ignored, because a resumed run keeps its settings: {', '.join(told)}"] if told else []


def _as_pretrained(overrides: dict[str, Any], shape: ModelConfig, name: str) -> dict[str, Any]:
    """Adapt settings to pretrained weights: take their size, and lower the default learning rate.

    Raises:
        UsageError: the settings ask for another size.
    """
    for option, value in (("hidden", shape.hidden), ("layers", shape.layers)):
        if overrides.get(option, value) != value:
            raise UsageError(
                f"--{option} {overrides[option]} does not match the weights of {name!r}: leave it out, or use {value}"
            )
    lr = LEARNING_RATES[overrides.get("optimizer", TrainConfig.optimizer)] * TUNING_RATE
    return {"lr": lr} | overrides | {"hidden": shape.hidden, "layers": shape.layers}


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
    unjudged = not goes_on and loop.evaluation_is_due(session.state)
    session.idle = not goes_on and not unjudged
    if note and not unjudged:
        session.notes.append(note)
    return session
