"""The curves of a run as a picture; the only module that needs matplotlib, from the extra `plot`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from charlstm.errors import UsageError
from charlstm.events import HEALTH
from charlstm.storage import atomic

KINDS = (".png", ".svg")
INCHES = (8.0, 6.0)


def write_plot(path: Path, name: str, history: Sequence[dict[str, Any]]) -> None:
    """Draw the losses and the health metrics in a file, which is replaced only once the picture is complete.

    Args:
        path: a file name that ends in .png or .svg.
        name: the name of the run, used as the title.
        history: the rows of its history.

    Raises:
        UsageError: matplotlib is missing, the file has another ending, or the history is empty.
        SaveError: the file can't be written.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path} is not a picture file: use a name that ends in {' or '.join(KINDS)}")
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
    steps = [point["step"] for point in history]
    figure = Figure(figsize=INCHES, layout="constrained")
    losses, health = figure.subplots(2, sharex=True)
    losses.plot(steps, [point["loss_nats"] for point in history], label="training")
    if judged := [(point["step"], point["val_nats"]) for point in history if point["val_nats"] is not None]:
        losses.plot(*zip(*judged, strict=True), "o-", label="held out")
    losses.set_title(name, parse_math=False)
    losses.set_ylabel("nats per character")
    for q in HEALTH:
        if q.field != "saturated":  # often 0, which a logarithmic axis can't show
            health.plot(steps, [point[q.field] for point in history], label=q.label)
    health.set_yscale("log")
    health.set_xlabel("step")
    for axes in (losses, health):
        axes.legend()
        axes.grid(alpha=0.3)

    def draw(file: BinaryIO) -> None:
        kind = path.suffix.lower().removeprefix(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the font may lack characters of the name
            figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)

    atomic.write_atomically(path, draw, "plot")
