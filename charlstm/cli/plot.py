"""The curves of a run as a picture; the only module that needs matplotlib, from the extra `plot`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from charlstm.display.formatting import inline
from charlstm.errors import UsageError
from charlstm.events import HEALTH
from charlstm.storage import atomic
from charlstm.storage.describe import ngram_baseline

KINDS = (".png", ".svg")
INCHES = (9.0, 6.0)


def write_plot(path: Path, facts: dict[str, Any]) -> None:
    """Draw the losses and the health metrics in a file, which is replaced only once the picture is complete.

    If something is held out and the text can still be read, the n-gram baseline is drawn too.

    Args:
        path: a file name that ends in .png or .svg.
        facts: the metadata of the run.

    Raises:
        UsageError: matplotlib is missing, the file has another ending, or the history is empty.
        SaveError: the file can't be written.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path} is not a picture file: use a name that ends in {' or '.join(KINDS)}")
    name, history = facts["name"], facts["history"]
    if not history:
        raise UsageError(
            f"{name!r} has no curves yet: continue it with 'charlstm resume {name}' until its first evaluation"
        )
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "--plot needs matplotlib, which is not installed: type pip install 'charlstm[plot]'"
        ) from error
    figure = Figure(figsize=INCHES, layout="constrained")
    losses, health = figure.subplots(2, sharex=True)
    losses.set_title(inline(name), parse_math=False)
    _draw_losses(losses, facts)
    _draw_health(health, history)
    for axes in (losses, health):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))  # outside, where it covers no curve
        axes.grid(alpha=0.3)

    def draw(file: BinaryIO) -> None:
        kind = path.suffix.lower().removeprefix(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the font may lack characters of the name
            figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)

    atomic.write_atomically(path, draw, "`plot`")


def _draw_losses(axes: Any, facts: dict[str, Any]) -> None:
    history = facts["history"]
    axes.plot([row["step"] for row in history], [row["loss_nats"] for row in history], label="training")
    if held_out := [(row["step"], row["val_nats"]) for row in history if row["val_nats"] is not None]:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out")
        if (baseline := ngram_baseline(facts)) is not None:
            axes.axhline(baseline.nats, color="0.4", linestyle="--", label=f"{baseline.order}-gram")
    axes.set_ylabel("nats per character")


def _draw_health(axes: Any, history: Sequence[dict[str, Any]]) -> None:
    for q in HEALTH:
        if q.field != "saturated":  # often 0, which a logarithmic axis can't show
            axes.plot([row["step"] for row in history], [row[q.field] for row in history], label=q.label)
    axes.set_yscale("log")
    axes.set_xlabel("step")
