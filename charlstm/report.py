"""What `info` puts on stdout: one run on one screen, and which runs there are."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from charlstm import checkpoint, ngram, runs
from charlstm.checkpoint import Checkpoint, Glance
from charlstm.display import cells, curve, words
from charlstm.display.jsonl import dump
from charlstm.errors import CheckpointError
from charlstm.session import BASE_BYTES
from charlstm.state import Point, TrainState

WORST = {
    "grad_norm": ("gradient", "{:.2f}"),
    "cell_max": ("|c|", "{:.0f}"),
    "weight_norm": ("weights", "{:.0f}"),
    "update_ratio": ("update", "{:.0e}"),
    "saturated": ("saturated", "{:.0%}"),
}
"""Of the history's columns those that tell of trouble when they are high, with their names and forms."""
LABEL_COLUMNS, MOST_COLUMNS, CURVE_ROWS = 10, 110, 7


def write_info(run: str | None, folder: Path, *, as_json: bool, plot: Path | None = None) -> int:
    """Write what is in a run's file to stdout, with none named of the newest and below it the list of all; returns the exit status.

    With `plot` its curves go to that file, too.
    """
    listed = [_listing(name, folder) for name in runs.run_names(folder)] if run is None else []
    found, state = _newest(listed) if listed else _load(_latest(run, folder))
    facts = describe(found, state)
    if plot is not None:
        from charlstm.plot import write_plot

        write_plot(plot, facts["name"], found.history)
        print(f"the curves are in {plot}", file=sys.stderr)
    if as_json:
        print(dump(facts | ({"runs": [listing.facts() for listing in listed]} if run is None else {})))
        return 0
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    lines = _screen(found, facts, console)
    if len(listed) > 1:
        lines += [Text(), *_list(listed)]
    for line in lines:
        console.print(line, soft_wrap=True)
    return 0


def _newest(listed: list[_Listing]) -> tuple[Checkpoint, TrainState | None]:
    """The newest run that can be used; what is wrong with those before it is noted."""
    for listing in listed:
        try:
            return _load(listing.path)
        except CheckpointError as error:
            listing.glance, listing.error = None, str(error)
    raise CheckpointError(listed[0].error)


def _load(path: Path) -> tuple[Checkpoint, TrainState | None]:
    """A checkpoint, and the run in it if it holds one."""
    found = checkpoint.load(path)
    return found, checkpoint.load_run(path) if found.resumable else None


def _latest(run: str | None, folder: Path) -> Path:
    """The file of a run: the latest state if it is there, not the best; that of a path as given."""
    path = runs.find_run(run, folder, best=True)
    latest = path.with_name(path.name.removesuffix(runs.BEST_SUFFIX) + runs.SUFFIX)
    named = run is None or not (run.endswith(runs.SUFFIX) or "/" in run)
    return latest if named and latest.is_file() else path


def describe(found: Checkpoint, state: TrainState | None = None) -> dict[str, Any]:
    """What is in a checkpoint, under the names that `info --json` keeps.

    Args:
        found: the checkpoint.
        state: the run in it, where it holds one.
    """
    model, config, text = found.writer.config, found.config, found.text
    last = found.history[-1] if found.history else None
    name = found.path.name.removesuffix(runs.BEST_SUFFIX).removesuffix(runs.SUFFIX)
    best = found.path.with_name(name + runs.BEST_SUFFIX)
    return {
        "name": name,
        "path": str(found.path),
        "best_path": str(best) if best.is_file() else None,
        "bytes": found.bytes,
        "age_s": _age_s(found.path),
        "format": checkpoint.FORMAT,
        "resumable": found.resumable,
        "step": found.step,
        "steps": found.plan.last,
        "chars_trained": found.step * config.batch * config.seq,
        "parameters": sum(p.size for p in found.writer.params.values()),
        "memory_bytes": _memory_bytes(state) if state else None,
        "hidden": model.hidden,
        "layers": model.layers,
        "embedding": model.embedding,
        "vocabulary": model.vocabulary,
        "loss_nats": last.loss_nats if last else None,
        "val_nats": last.val_nats if last else None,
        "best_val_nats": found.best_val_nats,
        "best_step": found.best_step,
        "chance_nats": float(np.log(model.vocabulary)),
        "text": list(text.sources),
        "text_chars": text.chars,
        "text_sha256": text.sha256,
        "encoding": text.encoding,
        **{name: value for name, value in vars(config).items() if name not in ("hidden", "layers")},
        "recoveries": state.guard.recoveries if state else None,
        "worst": {name: getattr(point, name) for name, point in _worst(found.history).items()},
        "history": [vars(point) for point in found.history],
    }


def _memory_bytes(state: TrainState) -> int:
    """What training the run takes, as `train` reckons it."""
    chars = state.text.chars
    held_out = int(chars * state.config.val_fraction)
    ids = chars * np.min_scalar_type(len(state.vocabulary) - 1).itemsize
    return BASE_BYTES + ids + state.memory_bytes + ngram.memory_bytes(chars - held_out if held_out else 0)


def _worst(history: list[Point]) -> dict[str, Point]:
    """Where each measure of health was highest."""
    return {name: max(history, key=lambda point: getattr(point, name)) for name in WORST} if history else {}


def _age_s(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)


# -- one run ----------------------------------------------------------------------------------------------------------


def _screen(found: Checkpoint, facts: dict[str, Any], console: Console) -> list[Text]:
    width = min(console.width, MOST_COLUMNS)
    lines = [Text(words.visible(facts["name"]), "bold")]
    for label, told in _told(found, facts):
        told = words.visible(told)
        parts = cells.wrap(cells.measurable(told), width - LABEL_COLUMNS) if console.is_terminal else [told]
        for number, part in enumerate(parts):
            lines.append(Text.assemble((f"{'' if number else label:<{LABEL_COLUMNS}}", "dim"), part))
    if len(found.history) > 1 and console.encoding.startswith("utf"):
        lines += [Text(), *_curve(found.history, width)]
    return lines


def _told(found: Checkpoint, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts in words, by what they are about."""
    f, config = facts, found.config
    share = f" of {f['steps']:,} ({f['step'] / max(1, f['steps']):.0%})" if f["steps"] is not None else ""
    passes = f["chars_trained"] / max(1, f["text_chars"] * (1 - config.val_fraction))
    held_out = f"; the last {100 * config.val_fraction:.2g}% held out" if f["best_val_nats"] is not None else ""
    embedding = f", embedding of {f['embedding']}" if f["embedding"] else ""
    rows = [
        (
            "model",
            f"{f['layers']}x{f['hidden']} LSTM, {f['parameters']:,} parameters{embedding}, dropout {config.dropout:g}",
        ),
        (
            "text",
            f"{', '.join(_short(source) for source in f['text'])}: {f['text_chars']:,} characters, {f['vocabulary']:,} different{held_out}",
        ),
        (
            "settings",
            f"batch {config.batch}, window {config.seq}, {config.optimizer} at {config.peak_lr:g}, clip {config.clip:g}, seed {config.seed}",
        ),
        ("trained", f"step {f['step']:,}{share}, {passes:.1f} passes, {words.count(f['chars_trained'])} characters"),
        ("loss", _loss(f)),
    ]
    if worst := _worst(found.history):
        told = ", ".join(
            f"{name} {form.format(getattr(worst[key], key))} (step {worst[key].step:,})"
            for key, (name, form) in WORST.items()
        )
        recovered = "" if f["recoveries"] is None else f", recoveries {f['recoveries']}"
        rows.append(("at worst", told + recovered))
    rows.append(("file", f"{f['path']}, {words.size(f['bytes'])}, {words.ago(f['age_s'])}"))
    if f["best_path"] not in (None, f["path"]):
        rows.append(("best", f"{f['best_path']}, which 'charlstm sample' takes"))
    if f["memory_bytes"] is None:
        rows.append(("resume", "no: it holds a model to sample from only"))
    else:
        rows.append(("resume", f"yes, in {words.size(f['memory_bytes'])} of memory"))
    return rows


def _short(source: str) -> str:
    """A text's path as it is best told."""
    short = os.path.relpath(source) if Path(source).is_absolute() else source
    return source if short.startswith("..") else short


def _loss(facts: dict[str, Any]) -> str:
    chance = f"by chance {facts['chance_nats']:.3f}"
    if facts["loss_nats"] is None:
        return f"not known before the first evaluation; {chance}"
    if facts["best_val_nats"] is None:
        return f"training {words.loss(facts['loss_nats'])}; nothing was held out; {chance}"
    return f"held out {words.loss(facts['best_val_nats'])} at best (step {facts['best_step']:,}); last {words.nats(facts['val_nats'])}, training {facts['loss_nats']:.3f}; {chance}"


def _curve(history: list[Point], width: int) -> list[Text]:
    """The history as curves, with the steps below them and what is what."""
    line = [(point.step, point.loss_nats) for point in history]
    marks = [(point.step, point.val_nats) for point in history if point.val_nats is not None]
    drawn = curve.chart(line, marks, width, CURVE_ROWS)
    room, span = len(drawn[0][0]) + 1, len(drawn[0][1])
    last = f"step {history[-1].step:,}"
    legend = "line: training" + (f"   {curve.MARK}: held out" if marks else "")
    lines = [Text.assemble((label, "dim"), " ", row) for label, row in drawn]
    return [*lines, Text(" " * room + f"{legend:<{max(0, span - len(last))}}" + last, "dim")]


# -- all runs ---------------------------------------------------------------------------------------------------------


@dataclass
class _Listing:
    """A run in the list: what its file says of itself, or what is wrong with it."""

    name: str
    path: Path
    glance: Glance | None
    error: str

    def facts(self) -> dict[str, Any]:
        """Under the names that `info --json` has for them."""
        base = {"name": self.name, "path": str(self.path)}
        if (g := self.glance) is None:
            return base | {"error": self.error}
        return base | {
            "bytes": g.bytes,
            "age_s": _age_s(self.path),
            "resumable": g.resumable,
            "step": g.step,
            "steps": g.plan.last,
            "parameters": g.parameters,
            "hidden": g.shape.hidden,
            "layers": g.shape.layers,
            "best_val_nats": g.best_val_nats,
        }


def _listing(name: str, folder: Path) -> _Listing:
    path = folder / (name + runs.SUFFIX)
    if not path.is_file():
        path = folder / (name + runs.BEST_SUFFIX)
    try:
        return _Listing(name, path, checkpoint.glance(path), "")
    except CheckpointError as error:
        return _Listing(name, path, None, str(error))


def _list(listed: list[_Listing]) -> list[Text]:
    """All runs, the newest first, in columns."""
    rows = [("run", "model", "parameters", "step", "best", "saved", "")] + [_row(listing) for listing in listed]
    widths = [max(cells.width(row[k]) for row in rows if k < len(row) - 1) for k in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        padded = [told + " " * (room - cells.width(told)) for told, room in zip(row[:-1], widths, strict=False)]
        lines.append(Text("  ".join([*padded, row[-1]]).rstrip()))
    lines[0].stylize("dim")
    return lines


def _row(listing: _Listing) -> tuple[str, ...]:
    """What the list says of a run; of one that can't be used its name and why."""
    name = cells.measurable(listing.name)
    if (g := listing.glance) is None:
        return name, words.visible(listing.error)
    return (
        name,
        f"{g.shape.layers}x{g.shape.hidden}",
        words.count(g.parameters),
        f"{g.step:,}" + (f" of {g.plan.last:,}" if g.plan.last is not None else ""),
        words.nats(g.best_val_nats),
        words.ago(_age_s(listing.path)),
        "" if g.resumable else "can't be resumed",
    )
