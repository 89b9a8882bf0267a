"""Turns a request into a session: finds or starts the run, reads its text, chooses its settings, takes its lock."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from charlstm.errors import CharlstmError, CheckpointError, CorpusError, UsageError
from charlstm.session import Session
from charlstm.settings import AUTO, NONE, Budget, ResumeRequest, RunOptions, TextOptions, TrainConfig, TrainRequest
from charlstm.storage import checkpoint, pretrained
from charlstm.storage.best import whole_best
from charlstm.storage.lock import Lock
from charlstm.storage.runs import RunFiles, check_folder, check_name, find_run, obstacle, skipped
from charlstm.storage.saver import check_replaceable
from charlstm.text import again, cache, corpus
from charlstm.text.ids import TextIds
from charlstm.text.sources import STDIN, default_name, find
from charlstm.training import loop
from charlstm.training.autoconfig import is_enough
from charlstm.training.budget import take_budget
from charlstm.training.control import Stop
from charlstm.training.fingerprint import fingerprint
from charlstm.training.memory import available_bytes, check_memory
from charlstm.training.pace import choose_by_first_steps
from charlstm.training.state import Pretrained, TrainState, begin, fit_to_ranks

MOST_HELD_OUT = 1_000_000
"""Default maximum of held-out characters, because every evaluation reads all of them."""
MOST_PROBABILITIES = 1_000_000_000
"""Default maximum of held-out characters times vocabulary size, which is reached from 1,000 distinct characters on."""
MANY_CHARACTERS = 20_000
"""More distinct characters than any written language has in ordinary texts."""


def start(request: TrainRequest, stop: Stop) -> Session:
    """Start a run on texts; if the run exists, refuse, resume or overwrite it, as the request says.

    Args:
        request: everything that the user asked for.
        stop: set its `reason` to end training.

    Raises:
        UsageError: a setting is invalid, or the run already exists and may not be touched.
        CorpusError: a text can't be found, read or decoded.
        CheckpointError: the file of the run, or of the pretrained weights, can't be used.
        LockedError: another process is training the run.
        CharlstmError: the checkpoint folder can't be created.
    """
    notes: list[str] = []
    sources = _find(request, notes)
    files = RunFiles.named(default_name(sources) if request.name is None else request.name, request.folder)
    check_name(files.name)
    if request.init_from not in (AUTO, NONE):
        find_run(request.init_from, request.folder, best=True)  # a wrong name is refused before anything is done
    seen = _existing(request, files)
    keeps_tail = seen and not seen.text.held_out and request.if_exists == "resume"
    held_out = again.find_held_out("" if keeps_tail else request.val_file, sources, notes, seen.text if seen else None)
    text = _read(sources, _reading(request, seen), request.options)
    if held_out:
        text = text.holding_out(_read(held_out, text.info.options, request.options))
    # What does not fit into memory is refused before anything is written.
    made = None if seen else _new_run(request, text)
    _make_folder(request.folder)
    with _locked(files) as lock:  # from here on, nobody else writes the run: look again
        return _with_lock(request, files, text, stop, lock, notes, made)


def _reading(request: TrainRequest, seen: checkpoint.Checkpoint | None) -> TextOptions:
    """Return how to read the texts: as the run did that exists, but for `update` with the options that were given."""
    own = seen.text.options if seen else request.reading
    given = {n: v for n, v in vars(request.reading).items() if v != getattr(TextOptions, n)}
    return replace(own, **given) if request.if_exists == "update" else own


def _read(sources: Sequence[str], reading: TextOptions, options: RunOptions) -> corpus.Corpus:
    return corpus.read(sources, reading, cache.folder_of(options.cache), options.on_read, available_bytes())


def _existing(request: TrainRequest, files: RunFiles) -> checkpoint.Checkpoint | None:
    """Return the checkpoint to resume or update; None to start a new run.

    Raises:
        UsageError: the run already exists and may not be touched.
        CheckpointError: its file can't be used.
    """
    exists = files.latest.exists()
    if request.if_exists == "fail" and exists:
        raise UsageError(
            f"the run {files.name!r} already exists ({files.latest}): continue it with 'charlstm resume {files.typed}', "
            f"set `if_exists` to resume or overwrite, or choose another `name`"
        )
    if request.if_exists == "fail" and files.best.exists():
        raise UsageError(
            f"the best model of a run {files.name!r} exists without the run ({files.best}): choose another `name`, or set "
            f"`if_exists` to overwrite"
        )
    return checkpoint.load(files.latest) if exists and request.if_exists in ("resume", "update") else None


@contextlib.contextmanager
def _locked(files: RunFiles) -> Iterator[Lock]:
    """Lock a run; the lock stays if all goes well."""
    lock = Lock(files.latest)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def _with_lock(
    request: TrainRequest,
    files: RunFiles,
    text: corpus.Corpus,
    stop: Stop,
    lock: Lock,
    notes: list[str],
    made: tuple[TrainState, corpus.Corpus, list[str]] | None,
) -> Session:
    """Start or resume a run that is locked, on a text that was read; `made` is the new run, if there was none before."""
    check_replaceable(files)
    old = _existing(request, files)
    if old is not None:
        if request.if_exists == "resume" or old.text.same_as(text.info):
            session = _resumed(ResumeRequest(files.name, request.budget, request.options), files, stop, lock, text)
            session.notes += _ignored(request, files, session.state)
            return session
        notes.append(f"the text has changed ({corpus.what_changed(old.text, old.char_model.vocabulary, text)})")
        request, made = replace(request, init_from=files.name), None
    elif (step := _saved_step(files)) is not None:
        notes.append(f"replaces the run {files.name!r}, which was saved at step {step:,}")
    run, text, more_notes = made or _new_run(request, text)
    train_ids, val_ids = text.split(run.config.val_fraction)
    session = Session(files, run, train_ids, val_ids, notes + more_notes, False, request.options, stop, lock)
    return _with_budget(session, request.budget)


def _find(request: TrainRequest, notes: list[str]) -> tuple[str, ...]:
    """Return the paths of the texts of a request; a run that was named instead of a text gets a message of its own."""
    try:
        return find(request.texts, notes)
    except CorpusError as error:
        for name in request.texts:
            files = RunFiles.named(name, request.folder)
            if obstacle(files.latest) is None and not Path(name).exists():
                raise CorpusError(
                    f"there is no text {name!r}, but a run of that name: continue it with "
                    f"'charlstm resume {files.typed}', or give the path of a text"
                ) from error
        raise


def _saved_step(files: RunFiles) -> int | None:
    """Return the step of a run that is about to be replaced; None if there is none that can be read."""
    for path in (files.latest, files.best):
        with contextlib.suppress(CheckpointError):
            return checkpoint.read_header(path).step
    return None


def _new_run(request: TrainRequest, text: corpus.Corpus) -> tuple[TrainState, corpus.Corpus, list[str]]:
    """Build a run before its first step, with the settings that the user left open chosen to suit text, budget and machine.

    Returns:
        the run; its text, in the run's vocabulary; and notes for the user.
    """
    overrides, notes = dict(request.overrides), []
    most = min(MOST_HELD_OUT, MOST_PROBABILITIES // len(text.vocabulary))
    if text.held_out is not None:
        if overrides.pop("val_fraction", 0.0):
            notes.append("ignored `val_fraction`: the held-out text is `val_file`")
        overrides["val_fraction"] = 0.0
    elif len(text.ids) * TrainConfig.val_fraction > most:
        overrides = {"val_fraction": most / len(text.ids)} | overrides
    fraction = overrides.get("val_fraction", TrainConfig.val_fraction)
    weights, note = _weights(request, text, text.split(fraction)[0])
    notes.append(note)
    if weights is not None:
        text, note = text.joined(weights.model.vocabulary)
        notes.append(note)
        if request.init_from != AUTO:  # only the base grows unasked
            config = weights.model.config
            overrides = {"hidden": config.hidden, "layers": config.layers} | overrides
    notes.append(again.check_held_out(text, request.unknown))
    train_ids, _ = text.split(fraction)
    choice = choose_by_first_steps(text, train_ids, request.budget, overrides, request.options.cores, weights)
    run, more_notes = begin(text, TrainConfig(**choice.settings), request.options.cores, weights)
    if len(text.vocabulary) > MANY_CHARACTERS:
        notes.append(
            f"the text has {len(text.vocabulary):,} distinct characters, which makes every step slow: "
            f"check that it is a text, and its `encoding`"
        )
    return run, text, [note for note in (*text.notes, *notes, choice.why, *more_notes) if note]


def _weights(request: TrainRequest, text: corpus.Corpus, train_ids: TextIds) -> tuple[Pretrained | None, str]:
    """Return the weights to start from, None for random ones; and a note for the user.

    Raises:
        UsageError: the run does not exist, or does not fit into the size that was asked for.
        CheckpointError: its file can't be used.
    """
    name = request.init_from
    if name == NONE:
        return None, ""
    if name == AUTO:
        base, why = pretrained.for_text(text, train_ids, request.overrides)
        sizes, cores = (len(train_ids), len(text.vocabulary)), request.options.cores
        if base is None:
            return None, why
        if is_enough(*sizes, request.budget, dict(request.overrides), cores):
            return None, "starts from random weights: text and budget are enough to learn as much without the base"
        return base, why + pretrained.read_before(train_ids, text.vocabulary)
    weights = pretrained.from_run(name, request.folder, request.overrides)
    return weights, f"starts from the weights of {name!r}"


def _ignored(request: TrainRequest, files: RunFiles, run: TrainState) -> list[str]:
    """Return notes on the settings of a request that a resumed run does not have."""
    notes, own = _left_out(request.overrides, run.config), run.text.options
    if request.val_file and run.text.held_out is None:
        notes.append("ignored `val_file`: the run holds out the end of its text")
    if request.init_from not in (AUTO, run.pretrained.name if run.pretrained else NONE, files.name):
        notes.append(f"ignored `init_from` {request.init_from}: a run that is resumed keeps its weights")
    for name, value in vars(request.reading).items():
        if name != "encoding" and value not in (getattr(TextOptions, name), getattr(own, name)):
            notes.append(f"ignored `{name}` {value!r}: the run reads its text with {getattr(own, name)!r}")
    return notes


def resume(request: ResumeRequest, stop: Stop) -> Session:
    """Resume a run from its file, on the text that it was trained on.

    Args:
        request: everything that the user asked for.
        stop: set its `reason` to end training.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
        CorpusError: its text is missing or has changed.
        LockedError: another process is training it.
    """
    check_folder(request.folder)
    path = find_run(request.run, request.folder, best=False)
    files = RunFiles.of(path)
    if not files.latest.exists():
        files = replace(files, latest=path)  # a model without its run: the loader explains that
    with _locked(files) as lock:
        check_replaceable(files)
        session = _resumed(request, files, stop, lock)
    if request.run is None and (note := skipped(request.folder)):
        session.notes.append(note)
    return session


def _resumed(
    request: ResumeRequest, files: RunFiles, stop: Stop, lock: Lock, text: corpus.Corpus | None = None
) -> Session:
    """Resume a run that is locked, on its text; if that is not given, it is read again."""
    run = _load(files.latest)
    if text is None:
        read = partial(_read, options=request.options)
        text = again.read_again(run.text, run.vocabulary, files.words, request.texts, request.val_file, read)
    else:
        again.check_same(run.text, run.vocabulary, files.words, text)
    text = text.numbered_as(run.vocabulary)  # weights that it started from can have had more characters
    instead, val_chars = "end other programs, or raise the limit", text.held_out_chars
    check_memory(run.shape, run.config, run.text.chars, text.mapped, instead, val_chars=val_chars)
    if STDIN not in text.info.sources:
        run.text = text.info  # it may have moved
    notes = list(text.notes)
    if run.arithmetic not in ("", fingerprint()):
        notes.append(
            "arithmetic here differs from the previous machine (CPU, NumPy or BLAS): "
            "training continues, but not bit-identically"
        )
    run.arithmetic = fingerprint()
    train_ids, val_ids = text.split(run.config.val_fraction)
    session = Session(files, run, train_ids, val_ids, notes, True, request.options, stop, lock)
    return _with_budget(session, request.budget)


def _load(path: Path) -> TrainState:
    """Read a run; if its file can't be used but that of its best model can, say what to do with that."""
    try:
        return checkpoint.load_run(path)
    except CheckpointError as error:
        best, files = whole_best(path), RunFiles.of(path)
        if best is None:
            raise
        raise CheckpointError(
            f"{error}; {best} is whole: sample from it with 'charlstm sample {files.typed}', or train from its weights "
            f"with 'charlstm train TEXT --init-from {files.typed} --name {shlex.quote(files.name + '-2')}'"
        ) from error


def _left_out(overrides: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return a note on requested settings that a resumed run ignores."""
    left_out = [
        f"`{key}` {value} (the run has {getattr(config, key)})"
        for key, value in overrides.items()
        if value not in (getattr(config, key), config.peak_lr if key == "lr" else None)
    ]
    return [f"ignored, because a resumed run keeps its settings: {', '.join(left_out)}"] if left_out else []


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(
            f"the folder {folder} can't be created ({error.strerror}): choose another with `checkpoints`"
        ) from error


def _with_budget(session: Session, budget: Budget) -> Session:
    session.notes += fit_to_ranks(session.state)
    goes_on, note = take_budget(session.state, budget, session.windows, len(session.val_ids))
    # A run that was killed between its last step and the evaluation of that step still owes the evaluation.
    unjudged = not goes_on and loop.evaluation_is_due(session.state)
    session.idle = not goes_on and not unjudged
    session.notes += [note] if note and not unjudged else []
    return session
