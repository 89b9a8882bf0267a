"""What `eval` puts on stdout."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import api
from charlstm.cli.sample import can_show
from charlstm.display.formatting import bits, loss, visible
from charlstm.display.jsonl import dump
from charlstm.settings import TextOptions, Unknown

SHADES = (("green", 0.5), ("default", 1.5), ("yellow", 3.0), ("red", 5.0), ("bold red", math.inf))
"""Colours of characters, with the upper limit of each on the negative log-likelihood in nats."""


def write_eval(
    run: str,
    folder: Path,
    corpora: Sequence[str],
    reading: TextOptions,
    context: int,
    unknown: Unknown,
    *,
    show: bool,
    as_json: bool,
) -> int:
    """Print how well a run predicts texts to stdout; return the exit status."""
    from tqdm import tqdm

    model = api.load(run, folder)
    scored = model.score(api.read_text(corpora, **vars(reading)), context=context, unknown=unknown)
    char_nll = np.zeros(len(scored.ids) if show else 0, np.float32)
    total = 0.0
    with tqdm(total=scored.chars, unit="char", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:
        for places, nats in scored:
            total += float(nats.sum(dtype=np.float64))
            if show:
                char_nll[places] = nats
            bar.update(len(nats))
    if show:
        _write_shades(model.vocabulary, scored.ids, char_nll)
    mean, chance = total / scored.chars, math.log(len(model.vocabulary))
    facts = {
        "chars": scored.chars,
        "nats_per_char": mean,
        "bits_per_char": bits(mean),
        "uniform_nats": chance,
        "context": context,
        "left_out": scored.left_out,
    }
    if as_json:
        print(dump(facts), flush=True)
    else:
        lost = f" ({scored.left_out:,} unknown ones skipped)" if scored.left_out else ""
        print(
            f"{loss(mean)} per character over {scored.chars:,} characters{lost}; chance level {loss(chance)}",
            flush=True,
        )
    return 0


def _write_shades(characters: str, ids: NDArray[Any], char_nll: NDArray[np.float32]) -> None:
    """Print a text line by line, with each character coloured by its negative log-likelihood; Rich respects NO_COLOR."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=can_show(sys.stdout), highlight=False, markup=False, emoji=False, soft_wrap=True)
    edges = np.array([edge for _, edge in SHADES[:-1]], np.float32)
    shades = np.searchsorted(edges, char_nll)
    newline = characters.find("\n")
    ends = np.flatnonzero(ids == newline) if newline >= 0 else np.array([], np.intp)
    start = 0
    for end in [*(int(e) + 1 for e in ends), len(ids)]:
        line = Text()
        for shade, group in itertools.groupby(range(start, end), key=lambda k: int(shades[k])):
            line.append(visible("".join(characters[ids[k]] for k in group)), SHADES[shade][0])
        console.print(line, end="")
        start = end
    if len(ids) and ids[-1] != newline:
        console.print()
