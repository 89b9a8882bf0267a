"""Lines that can be posted: what `--max-chars` and `--no-copy` keep, and what they cost.

    python -m tests.experiments.posts tweets.npz tweets.txt --max-chars 280 --no-copy 30

It samples 1,000 lines with both limits and checks each: its length, its passages against the training text, and its last
word, which must be a word that ends a line or a sentence of the text or be followed by a mark. The cost is that of the same
number of lines without the limits, sampled just before and just after, in processor time.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from charlstm import api
from charlstm.settings import SampleConfig
from tests.experiments.line_lengths import sample_lines


def passages_of(text: str, chars: int) -> set[str]:
    """Return all passages of this many characters."""
    return {text[k : k + chars] for k in range(len(text) - chars + 1)}


def timed(model: api.Model, settings: SampleConfig, count: int) -> tuple[list[str], float]:
    """Return some lines, and the seconds of processor time that they took, which other programs hardly change."""
    began = sum(os.times()[:4])
    return sample_lines(model, settings, count), sum(os.times()[:4]) - began


def cut_off(lines: Sequence[str], text: str) -> list[str]:
    """Return the lines whose last word is the start of a word of the text, but not itself a word of it."""
    known = set(re.findall(r"\w+", text))
    starts = {word[:k] for word in known for k in range(1, len(word))}
    last = [re.search(r"(?<![\w@#/])(\w+)$", line) for line in lines]
    return [
        line
        for line, word in zip(lines, last, strict=True)
        if word is not None and word[1] not in known and word[1] in starts
    ]


def main() -> None:
    """Print the counts and the cost."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.posts", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--max-chars", type=int, default=280)
    parser.add_argument("--no-copy", type=int, default=30)
    parser.add_argument("--temp", type=float, default=SampleConfig().temperature)
    parser.add_argument("--lines", type=int, default=1000)
    options = parser.parse_args()
    model, text = api.load(options.run), options.text.read_text(encoding="utf-8")
    plain = SampleConfig(temperature=options.temp, lines=1, length=0)
    limited = SampleConfig(temperature=options.temp, lines=1, max_chars=options.max_chars, no_copy=options.no_copy)
    for settings in (plain, limited):
        list(model.sample_many([0], settings))  # reads the text, which is a cost of its own
    free, before = timed(model, plain, options.lines)
    lines, cost = timed(model, limited, options.lines)
    _, after = timed(model, plain, options.lines)
    passages = passages_of(text, options.no_copy)  # with the held-out tail
    for name, found in (("plain", free), ("limited", lines)):
        copied = sum(not passages.isdisjoint(passages_of(line, options.no_copy)) for line in found)
        print(
            f"{name}: {len(found):,} lines, {sum(len(line) > options.max_chars for line in found)} longer than "
            f"{options.max_chars}, {copied} with {options.no_copy} copied characters, {len(cut_off(found, text))} that end "
            f"within a word, longest {max(map(len, found))}"
        )
    print(
        f"cost: {cost:.1f} s; plain {before:.1f} s before and {after:.1f} s after: {2 * cost / (before + after):.2f} times"
    )


if __name__ == "__main__":
    main()
