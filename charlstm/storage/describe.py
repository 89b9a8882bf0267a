"""Metadata of runs and of a checkpoint folder, as `info` prints it."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.errors import CheckpointError, CorpusError
from charlstm.events import HEALTH
from charlstm.inference import ngram
from charlstm.inference.ngram import NgramBaseline
from charlstm.nn.model import parameter_count
from charlstm.settings import AUTO, TextOptions
from charlstm.storage import checkpoint, runs
from charlstm.storage.checkpoint import Checkpoint, CheckpointHeader
from charlstm.storage.lock import trainer_of
from charlstm.storage.runs import RunFiles
from charlstm.text import cache, corpus
from charlstm.text.sources import STDIN, find_again
from charlstm.training.state import TrainState, memory_bytes


def describe(run: str | None, folder: Path) -> dict[str, Any]:
    """Return the metadata of a run under the keys of `info --json`.

    With None, it describes the newest run that can be used, and lists all runs under `runs`, with the files that are
    named like runs but are none.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
    """
    runs.check_folder(folder)
    if run is not None:
        return _facts(*checkpoint.load_all(_latest(run, folder)))
    names, skipped = runs.list_runs(folder)
    listed: list[_Entry] = []
    newest: dict[str, Any] | None = None
    for name in names:
        path = _file(name, folder)
        if newest is not None:
            listed.append(_Entry.of(name, path))
            continue
        try:
            saved, state = checkpoint.load_all(path)
            newest = _facts(saved, state)
            listed.append(_Entry(name, path, saved.header, ""))
        except CheckpointError as error:
            listed.append(_Entry(name, path, None, str(error)))
    if newest is None:
        if listed:
            raise CheckpointError(listed[0].error)
        newest = _facts(*checkpoint.load_all(runs.find_run(None, folder, best=True)))
    return newest | {"runs": [entry.facts() for entry in [*listed, *_no_runs(skipped)]]}


def describe_runs(folder: Path) -> list[dict[str, Any]]:
    """Return what `describe` has under `runs`, whether or not any of the runs can be used.

    Raises:
        UsageError: the folder does not exist.
    """
    runs.check_folder(folder)
    names, skipped = runs.list_runs(folder)
    listed = [_Entry.of(name, _file(name, folder)) for name in names]
    return [entry.facts() for entry in [*listed, *_no_runs(skipped)]]


def _no_runs(skipped: dict[Path, str]) -> list[_Entry]:
    return [
        _Entry(RunFiles.of(path).name, path, None, f"{path} is {what}, not a checkpoint")
        for path, what in sorted(skipped.items())
    ]


def ngram_baseline(facts: dict[str, Any]) -> NgramBaseline | None:
    """Compute the n-gram baseline of a run, given its metadata.

    The result is None if the training text has changed, can't be read again or has no held-out part.
    """
    if STDIN in facts["text"]:
        return None
    try:
        options, folder = TextOptions(**{f.name: facts[f.name] for f in fields(TextOptions)}), cache.folder_of(AUTO)
        text = corpus.read(find_again(facts["text"]), options, folder)
        if facts["val_file"]:
            text = text.holding_out(corpus.read(find_again(facts["val_file"]), options, folder))
    except CorpusError:
        return None
    train_ids, val_ids = text.split(facts["val_fraction"])
    held_out = text.info.held_out and text.info.held_out.sha256
    if (text.info.sha256, held_out) != (facts["text_sha256"], facts["val_sha256"]) or len(val_ids) == 0:
        return None
    return ngram.best(train_ids, val_ids, facts["vocabulary"])


def _file(name: str, folder: Path) -> Path:
    """Return the file of a run: its latest state if there is one, else its best model."""
    files = RunFiles.named(name, folder)
    return files.latest if files.latest.is_file() else files.best


def _latest(run: str, folder: Path) -> Path:
    """Return the file of a run: a path as given; for a name, the latest state if it exists, else the best model."""
    path = runs.find_run(run, folder, best=True)
    if run.endswith(runs.SUFFIX) or "/" in run:
        return path
    latest = RunFiles.of(path).latest
    return latest if latest.is_file() else path


def _facts(saved: Checkpoint, state: TrainState | None) -> dict[str, Any]:
    """Return the metadata of a checkpoint, and of the training state if it has one."""
    model, config, text = saved.char_model.config, saved.config, saved.text
    last = saved.history[-1] if saved.history else None
    files = RunFiles.of(saved.path)
    return {
        "name": files.name,
        "path": str(saved.path),
        "best_path": str(files.best) if files.best.is_file() else None,
        "bytes": saved.bytes,
        "age_s": _age_s(saved.path),
        "format": checkpoint.FORMAT,
        "resumable": saved.resumable,
        "trained_by": trainer_of(files.latest),
        "step": saved.step,
        "steps": saved.schedule.last,
        "chars_trained": saved.step * config.batch * config.seq,
        "parameters": parameter_count(model),
        "memory_bytes": memory_bytes(state, cache.is_long(text.sources)) if state else None,
        "hidden": model.hidden,
        "layers": model.layers,
        "embedding": model.embedding,
        "vocabulary": model.vocabulary,
        "loss_nats": last.loss_nats if last else None,
        "val_nats": last.val_nats if last else None,
        "best_val_nats": saved.best_val_nats,
        "best_step": saved.best_step,
        "uniform_nats": float(np.log(model.vocabulary)),
        "text": list(text.sources),
        "text_chars": text.chars,
        "text_sha256": text.sha256,
        "val_file": list(text.held_out.sources) if text.held_out else None,
        "val_chars": text.held_out.chars if text.held_out else None,
        "val_sha256": text.held_out.sha256 if text.held_out else None,
        **vars(text.options),
        "pretrained": vars(saved.pretrained) if saved.pretrained else None,
        "start_share": state.start_share if state and state.start else None,
        **{name: value for name, value in vars(config).items() if name not in ("hidden", "layers")},
        "recoveries": state.guard.recoveries if state else None,
        "worst": {q.field: max(getattr(row, q.field) for row in saved.history) for q in HEALTH if saved.history},
        "history": [vars(row) for row in saved.history],
    }


def _age_s(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)


@dataclass
class _Entry:
    """A run in the list, with the header of its file or the error in reading it."""

    name: str
    path: Path
    header: CheckpointHeader | None
    error: str

    @classmethod
    def of(cls, name: str, path: Path) -> _Entry:
        """Read the header of a run's file."""
        try:
            return cls(name, path, checkpoint.read_header(path), "")
        except CheckpointError as error:
            return cls(name, path, None, str(error))

    def facts(self) -> dict[str, Any]:
        """Return the entry under the keys of `info --json`."""
        base = {"name": self.name, "path": str(self.path)}
        if (g := self.header) is None:
            return base | {"error": self.error}
        return base | {
            "bytes": g.bytes,
            "age_s": _age_s(self.path),
            "resumable": g.resumable,
            "trained_by": trainer_of(RunFiles.of(self.path).latest),
            "step": g.step,
            "steps": g.schedule.last,
            "parameters": g.parameters,
            "hidden": g.shape.hidden,
            "layers": g.shape.layers,
            "best_val_nats": g.best_val_nats,
        }
