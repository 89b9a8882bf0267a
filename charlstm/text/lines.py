"""Lines and sentences: how long the lines of a text are, and where a sentence ends."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from charlstm.text.ids import TextIds, blocks, stored
from charlstm.text.vocabulary import Vocabulary

QUANTILES = 64
"""Number of equal parts that the sorted lengths of a text's lines are divided into."""
LONG_LINE = 1 << 12
"""Length in characters from which lines are counted one by one."""
MOST_CHARS = 1 << 28
"""Characters in which lines are counted; of a longer text, blocks at equal distances are."""
STOPS, WIDE_STOPS = ".!?…", "。！？"
"""Characters that end a sentence before a space, and those that end one before anything."""
CLOSERS = "\"'”’»)]}」』）"
"""Characters that may follow the end of a sentence and belong to it."""

EMPTY_LINES = 0.05
"""Fraction of empty lines from which they separate a text's paragraphs."""
ABBREVIATION = 12
"""Maximum number of characters of an abbreviation with dots."""
CIRCLES, CIRCLE_CHARS = 3, 60
"""Repetitions of a passage, and their characters, that are no chance."""


def line_quantiles(ids: TextIds, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return `QUANTILES` + 1 evenly spaced quantiles of the lengths of a text's lines; () if no line ends.

    The lengths do not count the line end. What follows the last line end is not counted.
    """
    if "\n" not in vocabulary:
        return ()
    text, numbers = stored(ids, vocabulary.encode("\n"))
    newline = int(numbers[0])
    if newline < 0:
        return ()
    last, times, longer = -1, np.zeros(LONG_LINE, np.int64), [np.empty(0, np.int64)]
    every = math.ceil(len(text) / MOST_CHARS)
    for number, (start, block) in enumerate(blocks(text)):
        if number % every:
            continue
        ends = start + np.flatnonzero(block == newline)
        if every > 1:
            last, ends = int(ends[0]) if len(ends) else last, ends[1:]  # the first line began elsewhere
        lengths = np.diff(ends, prepend=last) - 1
        times += np.bincount(lengths[lengths < LONG_LINE], minlength=LONG_LINE)
        longer.append(lengths[lengths >= LONG_LINE])
        last = int(ends[-1]) if len(ends) else last
    long_ones, up_to = np.sort(np.concatenate(longer)), np.cumsum(times)  # lines of at most each length
    short, count = int(up_to[-1]), int(up_to[-1]) + len(long_ones)
    places = np.arange(QUANTILES + 1) * (count - 1) // QUANTILES
    short_ones = np.searchsorted(up_to, places[places < short], side="right").tolist()
    return (*short_ones, *long_ones[places[places >= short] - short].tolist()) if count else ()


def opening(vocabulary: Vocabulary, quantiles: Sequence[int]) -> str:
    """Return what a model reads before it begins a text: the end of a line, or of a paragraph if empty lines separate them.

    Args:
        vocabulary: the model's; without a line end there is nothing to read.
        quantiles: see `line_quantiles`; () if they are not known.
    """
    if "\n" not in vocabulary:
        return ""
    return "\n\n" if quantiles.count(0) > EMPTY_LINES * len(quantiles) else "\n"


def sentence_ends(text: str, following: str) -> bool:
    """Return whether a text ends where a sentence ends, if a character follows."""
    stripped = text.rstrip(CLOSERS)
    if not stripped:
        return False
    if stripped[-1] == "." and re.search(r"(?:^|[^\w])\w(?:\.\w)*\.$", stripped[-ABBREVIATION:]):
        return False  # initials and abbreviations such as U.S.
    return stripped[-1] in WIDE_STOPS or (stripped[-1] in STOPS and following.isspace())


def circle_chars(text: str) -> int:
    """Return the length of the shortest passage that a text repeats at its end, 0 if it repeats none.

    The passage is there at least `CIRCLES` times, and these repetitions have at least `CIRCLE_CHARS` characters.
    """
    for chars in range(1, len(text) // CIRCLES + 1):
        times = max(CIRCLES, -(-CIRCLE_CHARS // chars))
        if text.endswith(text[-chars:] * times):
            return chars
    return 0
