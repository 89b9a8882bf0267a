"""Turns a request into a session: finds or starts the run, reads its text, chooses its settings, takes its lock."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charlstm.errors import CharlstmError, CorpusError, UsageError
from charlstm.nn.config import ModelConfig
from charlstm.session import Session
from charlstm.settings import LEARNING_RATES, Budget, ResumeRequest, TrainConfig, TrainRequest
from charlstm.storage import checkpoint
from charlstm.storage.lock import Lock
from charlstm.storage.runs import BEST_SUFFIX, SUFFIX, check_name, find_run
from charlstm.text import corpus
from charlstm.text.sources import STDIN, default_name, find
from charlstm.text.vocabulary import describe_some
from charlstm.training import loop
from charlstm.training.autoconfig import choose
from charlstm.training.budget import take_budget
from charlstm.training.control import Stop
from charlstm.training.fingerprint import fingerprint
from charlstm.training.state import TrainState, begin

TUNING_RATE = 0.25
"""Factor on the default learning rate when a run starts from pretrained weights."""
MOST_HELD_OUT = 1_000_000
"""Default maximum of held-out characters, because every evaluation reads all of them."""


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
    sources = find(request.texts)
    name = default_name(sources) if request.name is None else request.name
    check_name(name)
    path = request.folder / (name + SUFFIX)
    if path.exists():
        if request.if_exists == "fail":
            raise _exists(name, path)
        if request.if_exists == "resume":
            return _resume_as_requested(request, name, sources, stop)
    run, text, notes = _new_run(request, corpus.read(sources, request.encoding))
    _make_folder(request.folder)
    lock = Lock(path)
    if request.if_exists == "fail" and path.exists():  # another process created it while the text was read
        lock.release()
        raise _exists(name, path)
    train_ids, val_ids = text.split(run.config.val_fraction)
    session = Session(name, path, run, train_ids, val_ids, notes, False, request.options, stop, lock)
    return _with_budget(session, request.budget)


def _new_run(request: TrainRequest, text: corpus.Corpus) -> tuple[TrainState, corpus.Corpus, list[str]]:
    """Build a run before its first step, with the settings that the user left open chosen to suit text, budget and machine.

    Returns:
        the run; its text, in the run's vocabulary; and notes for the user.
    """
    overrides, pretrained, notes = dict(request.overrides), None, []
    if request.init_from is not None:
        pretrained = checkpoint.load(find_run(request.init_from, request.folder, best=True)).char_model
        overrides = _as_pretrained(overrides, pretrained.config, request.init_from)
        text, note = text.joined(pretrained.vocabulary)
        notes.append(f"weights from {request.init_from}: {note}")
    if len(text.ids) * TrainConfig.val_fraction > MOST_HELD_OUT:
        overrides = {"val_fraction": MOST_HELD_OUT / len(text.ids)} | overrides
    chars = len(text.split(overrides.get("val_fraction", TrainConfig.val_fraction))[0])
    choice = choose(chars, len(text.vocabulary), request.budget, overrides, request.options.cores)
    run, more_notes = begin(text, TrainConfig(**choice.settings), request.options.cores, pretrained)
    return run, text, [*notes, *([choice.why] if choice.why else []), *more_notes]


def _resume_as_requested(request: TrainRequest, name: str, sources: Sequence[str], stop: Stop) -> Session:
    """Resume a run on the texts of the request, with a note on the settings of the request that the run does not have."""
    resumed = resume(ResumeRequest(name, request.budget, request.options, request.folder), stop, sources=sources)
    resumed.notes += _left_out(request.overrides, resumed.state.config)
    return resumed


def resume(request: ResumeRequest, stop: Stop, *, sources: Sequence[str] | None = None) -> Session:
    """Resume a run from its file, on the text that it was trained on.

    Args:
        request: everything that the user asked for.
        stop: set its `reason` to end training.
        sources: where its text is now; None: where it was.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
        CorpusError: its text is missing or has changed.
        LockedError: another process is training it.
    """
    path = find_run(request.run, request.folder, best=False)
    if path.name.endswith(BEST_SUFFIX) and path.with_name(path.name.removesuffix(BEST_SUFFIX) + SUFFIX).exists():
        path = path.with_name(path.name.removesuffix(BEST_SUFFIX) + SUFFIX)
    lock = Lock(path)
    run = checkpoint.load_run(path)
    name = path.name.removesuffix(SUFFIX)
    text = _same_text(run, name, sources)
    notes = []
    if run.arithmetic not in ("", fingerprint()):
        notes.append(
            "arithmetic here differs from the previous machine (CPU, NumPy or BLAS): "
            "training continues, but not bit-identically"
        )
    run.arithmetic = fingerprint()
    train_ids, val_ids = text.split(run.config.val_fraction)
    session = Session(name, path, run, train_ids, val_ids, notes, True, request.options, stop, lock)
    return _with_budget(session, request.budget)


def _same_text(run: TrainState, name: str, sources: Sequence[str] | None) -> corpus.Corpus:
    """Read the text of a run again.

    Raises:
        UsageError: it came from standard input.
        CorpusError: it is missing or has changed.
    """
    if sources is None:
        sources = run.text.sources
        if STDIN in sources:
            raise UsageError(
                f"the text of {name!r} came from standard input: pipe it into 'charlstm train - --name {name} --if-exists resume'"
            )
    text = corpus.read(find(sources), run.text.encoding)
    if text.info.sha256 != run.text.sha256:
        raise CorpusError(
            f"the text of {name!r} has changed ({_what_changed(run, text)}): "
            f"restore the old one, or train on the new one with "
            f"'charlstm train {shlex.join(sources)} --init-from {name} --name {name}-2'"
        )
    return text


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
        f"set `if_exists` to resume or overwrite, or choose another `name`"
    )


def _left_out(overrides: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """Return a note on requested settings that a resumed run ignores."""
    told = [
        f"`{key}` {value} (the run has {getattr(config, key)})"
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
                f"`{option}` {overrides[option]} does not match the weights of {name!r}: leave it out, or use {value}"
            )
    lr = LEARNING_RATES[overrides.get("optimizer", TrainConfig.optimizer)] * TUNING_RATE
    return {"lr": lr} | overrides | {"hidden": shape.hidden, "layers": shape.layers}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CharlstmError(
            f"the folder {folder} can't be created ({error.strerror}): choose another with `checkpoints`"
        ) from error


def _with_budget(session: Session, budget: Budget) -> Session:
    goes_on, note = take_budget(session.state, budget, session.windows, len(session.val_ids))
    # A run that was killed between its last step and the evaluation of that step still owes the evaluation.
    unjudged = not goes_on and loop.evaluation_is_due(session.state)
    session.idle = not goes_on and not unjudged
    if note and not unjudged:
        session.notes.append(note)
    return session
