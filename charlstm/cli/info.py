"""The output of `info`: one run on one screen, and a list of all runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from charlstm import api
from charlstm.display import cells, curve, formatting
from charlstm.display.jsonl import dump
from charlstm.events import HEALTH
from charlstm.settings import TrainConfig
from charlstm.storage.describe import describe_runs
from charlstm.text.sources import summary

LABEL_COLUMNS, MOST_COLUMNS, CURVE_ROWS = 10, 110, 7


def write_info(run: str | None, folder: Path, *, as_json: bool, plot: Path | None = None) -> int:
    """Print a run to stdout, or the newest one and a list of all runs if `run` is None; return the exit status.

    With `plot`, also draw the curves in that file.
    """
    facts = api.describe(run, folder)
    if plot is not None:
        from charlstm.cli.plot import write_plot

        write_plot(plot, facts)
        print(f"curves saved to {formatting.inline(str(plot))}", file=sys.stderr)
    if as_json:
        print(dump(facts))
        return 0
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    lines = _screen(facts, console)
    if len(listed := facts.get("runs", [])) > 1:
        lines += [Text(), *_list(listed)]
    for line in lines:
        console.print(line, soft_wrap=True)
    return 0


def write_list(folder: Path, *, as_json: bool) -> int:
    """Print a list of all runs in a folder to stdout; return the exit status."""
    listed = describe_runs(folder)
    if as_json:
        print(dump({"runs": listed}))
        return 0
    if not listed:
        print(
            f"no runs in {formatting.inline(str(folder))} yet: type 'charlstm train CORPUS' to start one",
            file=sys.stderr,
        )
        return 0
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    for line in _list(listed):
        console.print(line, soft_wrap=True)
    return 0


# -- one run ----------------------------------------------------------------------------------------------------------


def _screen(facts: dict[str, Any], console: Console) -> list[Text]:
    width = min(console.width, MOST_COLUMNS)
    lines = [Text(formatting.inline(facts["name"]), "bold")]
    for label, text in _rows(facts):
        text = formatting.inline(text)
        parts = cells.wrap(cells.sanitize(text), width - LABEL_COLUMNS) if console.is_terminal else [text]
        for number, part in enumerate(parts):
            lines.append(Text.assemble((f"{'' if number else label:<{LABEL_COLUMNS}}", "dim"), part))
    if len(facts["history"]) > 1 and console.encoding.startswith("utf"):
        lines += [Text(), *_curve(facts["history"], width)]
    return lines


def _rows(f: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts as rows of label and text."""
    config = TrainConfig(**{name: f[name] for name in TrainConfig.__dataclass_fields__})
    share = f" of {f['steps']:,} ({f['step'] / max(1, f['steps']):.0%})" if f["steps"] is not None else ""
    passes = f["chars_trained"] / max(1, f["text_chars"] * (1 - config.val_fraction))
    held_out = f"; the last {100 * config.val_fraction:.2g}% held out" if f["best_val_nats"] is not None else ""
    if f["val_file"]:
        held_out = f"; held out: {summary(f['val_file'], _short)}, {f['val_chars']:,} characters"
    embedding = f", embedding of {f['embedding']}" if f["embedding"] else ""
    rows = [
        (
            "model",
            f"{f['layers']}x{f['hidden']} LSTM, {f['parameters']:,} parameters{embedding}, dropout {config.dropout:g}",
        ),
        (
            "text",
            f"{summary(f['text'], _short)}: {f['text_chars']:,} characters, {f['vocabulary']:,} distinct{held_out}",
        ),
        (
            "settings",
            f"batch {config.batch}, window {config.seq}, {config.optimizer} at {config.peak_lr:g}, clip {config.clip:g}, seed {config.seed}"
            + (f", hosts averaged every {config.sync_every} steps" if config.sync_every > 1 else ""),
        ),
        (
            "trained",
            f"step {f['step']:,}{share}, {passes:.1f} epochs, {formatting.count(f['chars_trained'])} characters"
            + (f"; in training by {f['trained_by']}" if f["trained_by"] else ""),
        ),
        ("loss", _loss(f)),
    ]
    if f["pretrained"]:
        kept = "" if f["start_share"] is None else f", which are {f['start_share']:.0%} of the average"
        rows.insert(2, ("started", f"from the weights of {f['pretrained']['name']}{kept}"))
    if f["history"]:
        peaks = ", ".join(
            f"{q.label} {worst[q.field]:{q.spec}} (step {worst['step']:,})"
            for q in HEALTH
            for worst in [max(f["history"], key=lambda point: point[q.field])]
        )
        recovered = "" if f["recoveries"] is None else f", recoveries {f['recoveries']}"
        rows.append(("peaks", peaks + recovered))
    rows.append(("file", f"{f['path']}, {formatting.size(f['bytes'])}, {formatting.ago(f['age_s'])}"))
    if f["best_path"] not in (None, f["path"]):
        rows.append(("best", f"{f['best_path']}, used by 'charlstm sample'"))
    if f["memory_bytes"] is None:
        rows.append(("resume", "no: this file contains only the model, for sampling"))
    else:
        rows.append(("resume", f"yes, needs {formatting.size(f['memory_bytes'])} of memory"))
    return rows


def _short(source: str) -> str:
    """Return the path of a text relative to the working directory, or unchanged if it lies outside."""
    short = os.path.relpath(source) if Path(source).is_absolute() else source
    return source if short.startswith("..") else short


def _loss(facts: dict[str, Any]) -> str:
    chance = f"chance level {facts['uniform_nats']:.3f}"
    if facts["loss_nats"] is None:
        return f"unknown before the first evaluation; {chance}"
    if facts["best_val_nats"] is None:
        return f"training {formatting.loss(facts['loss_nats'])}; nothing was held out; {chance}"
    return f"held out {formatting.loss(facts['best_val_nats'])} at best (step {facts['best_step']:,}); last {formatting.nats(facts['val_nats'])}, training {facts['loss_nats']:.3f}; {chance}"


def _curve(history: Sequence[dict[str, Any]], width: int) -> list[Text]:
    """Return the history as curves, with a legend below."""
    line = [(point["step"], point["loss_nats"]) for point in history]
    marks = [(point["step"], point["val_nats"]) for point in history if point["val_nats"] is not None]
    drawn = curve.chart(line, marks, width, CURVE_ROWS)
    room, span = len(drawn[0][0]) + 1, len(drawn[0][1])
    last = f"step {history[-1]['step']:,}"
    legend = "line: training" + (f"   {curve.MARK}: held out" if marks else "")
    lines = [Text.assemble((label, "dim"), " ", row) for label, row in drawn]
    return [*lines, Text(" " * room + f"{legend:<{max(0, span - len(last))}}" + last, "dim")]


# -- all runs ---------------------------------------------------------------------------------------------------------


def _list(listed: Sequence[dict[str, Any]]) -> list[Text]:
    """Return the list of all runs, newest first, in columns."""
    rows = [("run", "model", "parameters", "step", "best", "saved", "")] + [_row(entry) for entry in listed]
    widths = [max(cells.width(row[k]) for row in rows if k < len(row) - 1) for k in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        padded = [cell + " " * (room - cells.width(cell)) for cell, room in zip(row[:-1], widths, strict=False)]
        lines.append(Text("  ".join([*padded, row[-1]]).rstrip()))
    lines[0].stylize("dim")
    return lines


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    """Return one row of the list; for a run that can't be used, its name and the error."""
    name = cells.sanitize(formatting.inline(entry["name"]))
    if "error" in entry:
        return name, formatting.inline(entry["error"])
    return (
        name,
        f"{entry['layers']}x{entry['hidden']}",
        formatting.count(entry["parameters"]),
        f"{entry['step']:,}" + (f" of {entry['steps']:,}" if entry["steps"] is not None else ""),
        formatting.nats(entry["best_val_nats"]),
        formatting.ago(entry["age_s"]),
        "in training" if entry["trained_by"] else "" if entry["resumable"] else "can't be resumed",
    )
