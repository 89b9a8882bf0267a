"""How long the lines that a model writes are, at several temperatures, beside those of its text.

    python -m tests.experiments.line_lengths tweets.npz tweets.txt
    python -m tests.experiments.line_lengths tweets.npz tweets.txt --temps 0.4 0.6 --lines 1000 --gain 0 4

At each temperature it samples this many lines, each with a seed of its own, and prints a row of a table: the median, the
90 % quantile and the longest line, each compared with that of the text, and how many lines are distinct. Empty lines do not
count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from charlstm import api
from charlstm.nn import hazard
from charlstm.settings import SampleConfig

BATCH = 256


def sample_lines(model: api.Model, settings: SampleConfig, count: int) -> list[str]:
    """Return one line per seed, without its line end."""
    lines: list[str] = []
    for first in range(0, count, BATCH):
        seeds = range(first, min(first + BATCH, count))
        texts = [""] * len(seeds)
        for pieces in model.sample_many(seeds, settings):
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        lines += [text.removesuffix("\n") for text in texts]
    return lines


def row(lines: Sequence[str], text_lines: Sequence[str]) -> str:
    """Return what there is to know about the lengths of some lines, as cells of a table."""
    length, text = (np.array([len(line) for line in group if line]) for group in (lines, text_lines))
    cells = [
        f"{np.quantile(length, q):.0f} | {np.quantile(length, q) / np.quantile(text, q) - 1:+.0%}" for q in (0.5, 0.9)
    ]
    return " | ".join(
        [*cells, f"{length.max()} | {length.max() / text.max():.2f}", f"{len(set(lines)):,} of {len(lines):,}"]
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.experiments.line_lengths", description=__doc__.split("\n")[0]
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--temps", type=float, nargs="+", default=[0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--min-p", type=float, default=0.0)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--gain", type=float, nargs="+", default=[hazard.GAIN], help="values of `hazard.GAIN`")
    options = parser.parse_args()
    model = api.load(options.run)
    text_lines = options.text.read_text(encoding="utf-8").split("\n")[:-1]

    print("| temperature | gain | median | | 90 % | | longest | | distinct |\n|---|---|---|---|---|---|---|---|---|")
    print(f"| (the text) | | {row(text_lines, text_lines)} |", flush=True)
    for gain in options.gain:
        hazard.GAIN = gain
        for temp in options.temps:
            settings = SampleConfig(temperature=temp, top_p=options.top_p, min_p=options.min_p, lines=1, length=0)
            lines = sample_lines(model, settings, options.lines)
            print(f"| {temp:g} | {gain:g} | {row(lines, text_lines)} |", flush=True)


if __name__ == "__main__":
    main()
