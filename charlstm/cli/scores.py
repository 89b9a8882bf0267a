"""What `eval` puts on stdout."""

from __future__ import annotations

import itertools
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlstm import api
from charlstm.cli.reading import reading_bar
from charlstm.cli.sample import can_show
from charlstm.display import cells
from charlstm.display.formatting import bits, loss, visible
from charlstm.display.jsonl import dump
from charlstm.errors import UsageError
from charlstm.settings import AUTO, TextOptions, Unknown


class Shade(NamedTuple):
    """How characters up to some negative log-likelihood are shown."""

    style: str
    mark: str  # printed below the character where there are no colours
    limit: float  # in nats


SHADES = (
    Shade("color(39)", " ", 0.5), Shade("default", ".", 1.5), Shade("color(178)", ":", 3.0),
    Shade("underline color(166)", "+", 5.0), Shade("reverse color(166)", "#", math.inf),
)  # fmt: skip
"""Blue, orange and vermilion can be told apart with any kind of colour vision; underlined and reversed even without."""
TAB = 8
"""Columns between two tab stops."""
PATIENCE_S = 1.0
"""Seconds before progress is shown."""


def write_eval(
    run: str,
    folder: Path,
    corpora: Sequence[str],
    reading: TextOptions,
    context: int,
    unknown: Unknown,
    *,
    adapt: bool = False,
    limit: int = 0,
    cache: str = AUTO,
    show: bool,
    as_json: bool,
) -> int:
    """Print how well a run predicts texts to stdout; return the exit status."""
    from tqdm import tqdm

    model = _load(run, folder, corpora, cache)
    with reading_bar() as on_read:
        text = (
            api.read_text(corpora, cache=cache, on_read=on_read, **vars(reading)) if corpora else model.held_out_text()
        )
    scored = model.score(text, context=context, unknown=unknown if corpora else "skip", limit=limit, adapt=adapt)
    char_nll = np.full(len(scored.ids) if show else 0, np.nan, np.float32)
    total = 0.0
    with tqdm(
        total=scored.chars, unit="char", unit_scale=True, delay=PATIENCE_S, leave=False, disable=None, file=sys.stderr
    ) as bar:
        for places, nats in scored:
            total += float(nats.sum(dtype=np.float64))
            if show:
                char_nll[places] = nats
            bar.update(len(nats))
    mean, chance = scored.checked(total / scored.chars), math.log(len(model.vocabulary))
    if as_json:
        facts: dict[str, Any] = {
            "chars": scored.chars,
            "nats_per_char": mean,
            "bits_per_char": bits(mean),
            "uniform_nats": chance,
            "context": context,
            "adapt": adapt,
            "left_out": scored.left_out,
        }
        if show:
            facts["text"] = "".join(model.vocabulary[k] for k in np.asarray(scored.ids))
            facts["char_nats"] = [round(value, 4) if math.isfinite(value) else None for value in char_nll.tolist()]
        print(dump(facts), flush=True)
        return 0
    if show:
        _write_shades(model.vocabulary, np.asarray(scored.ids), char_nll)
    lost = f" ({scored.left_out:,} unknown ones skipped)" if scored.left_out else ""
    how = ", adapting to them (dynamic evaluation)" if adapt else f", in windows of {context:,}" if context else ""
    print(
        f"{loss(mean)} per character over {scored.chars:,} characters{how}{lost}; chance level {loss(chance)}",
        flush=True,
    )
    return 0


def _load(run: str, folder: Path, corpora: Sequence[str], cache: str) -> api.Model:
    """Load a run; if it was given in the place of the text, say so."""
    try:
        return api.load(run, folder, cache)
    except UsageError as error:
        if Path(run).is_file() and len(corpora) == 1:
            try:
                api.load(corpora[0], folder)
            except UsageError:
                raise error from None
            words = shlex.join([corpora[0], run])
            raise UsageError(f"{run} is a text and {corpora[0]!r} is a run: type 'charlstm eval {words}'") from error
        raise


def _write_shades(characters: str, ids: NDArray[Any], char_nll: NDArray[np.float32]) -> None:
    """Print a legend and a text, with each character shown by its negative log-likelihood.

    With colours, the text itself is coloured. Without (a pipe, NO_COLOR), a line of marks follows each line of text.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(file=can_show(sys.stdout), highlight=False, markup=False, emoji=False, soft_wrap=True)
    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    limits = np.array([shade.limit for shade in SHADES[:-1]], np.float32)
    shades = np.searchsorted(limits, np.nan_to_num(char_nll))  # the first character is not predicted
    legend = Text("nats per character: ")
    for low, shade in zip((0.0, *limits.tolist()), SHADES, strict=True):
        words = f"{low:g} to {shade.limit:g}" if math.isfinite(shade.limit) else f"above {low:g}"
        legend.append(*((words, shade.style) if coloured else (f"{shade.mark!r} {words}", "")))
        legend.append("" if shade is SHADES[-1] else ", ")
    console.print(legend)
    for start, end in _lines(ids, characters.find("\n")):
        line, marks = Text(), ""
        for number, group in itertools.groupby(range(start, end), key=lambda k: int(shades[k])):
            text = ""
            for shown in map(visible, (characters[ids[k]] for k in group)):
                columns = TAB - len(marks) % TAB if shown == "\t" else cells.width(cells.sanitize(shown))
                text += " " * columns if shown == "\t" else shown
                marks += SHADES[number].mark * columns
            line.append(text, SHADES[number].style if coloured else "")
        console.print(line, end="" if line.plain.endswith("\n") else "\n")
        if not coloured:
            console.print(marks.rstrip())


def _lines(ids: NDArray[Any], newline: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each line of a text, its newline included."""
    start = 0
    for end in [*(int(k) + 1 for k in np.flatnonzero(ids == newline)), len(ids)]:
        if end > start:
            yield start, end
        start = end
