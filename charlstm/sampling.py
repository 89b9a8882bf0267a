"""Writing text: a generator of characters from a model and a random generator of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charlstm.errors import CharlstmError, PromptError, UsageError
from charlstm.nn import choose, parallel
from charlstm.nn.config import ModelConfig
from charlstm.nn.stepper import Stepper
from charlstm.nn.types import Array, Arrays
from charlstm.settings import SampleConfig
from charlstm.vocabulary import Vocabulary, describe_some
from charlstm.workers import side_by_side

SMALLEST = np.float32(1e-30)
"""Stands for a uniform number that came out as 0, which has no logarithm."""
BLOCK_NUMBERS = 1 << 14
"""Random numbers are drawn in blocks of about so many."""
LONGEST_LINE = 100_000
"""Whole lines are waited for so long: a model that goes round in a circle never writes another line end."""


@dataclass(frozen=True)
class Writer:
    """All that sampling needs of a model."""

    config: ModelConfig
    params: Arrays
    vocabulary: Vocabulary


def readable_prompt(vocabulary: Vocabulary, prompt: str, unknown: str) -> str:
    """The prompt as the model can read it.

    Raises:
        PromptError: it holds characters the model never saw, and `unknown` is ``error`` and not ``skip``.
    """
    strange = vocabulary.unknown(prompt)
    if strange and unknown == "error":
        raise PromptError(
            f"the model never saw {describe_some(strange)} of the prompt: take other characters, or --unknown skip to leave them out"
        )
    return "".join(c for c in prompt if c in vocabulary)


def beginning(vocabulary: Vocabulary, prompt: str, unknown: str) -> str:
    """What the model reads before it writes: the prompt, or else a line end; nothing if it knows none.

    Raises:
        PromptError: see `readable_prompt`.
    """
    return readable_prompt(vocabulary, prompt, unknown) or ("\n" if "\n" in vocabulary else "")


def generate(
    writer: Writer, settings: SampleConfig, rngs: Sequence[np.random.Generator], threads: int = 1
) -> Iterator[list[str]]:
    """Write texts side by side, one with each random generator, on so many cores.

    Without a prompt a text begins as after a line end; where the model knows no line end, with a character drawn at random.

    Yields:
        for every character made, one string a text: what can be shown of it (nothing once it has ended, and nothing while
        it may be the beginning of the stop text).

    Raises:
        PromptError: see `readable_prompt`.
        UsageError: lines are asked for, and the model knows no line end.
        CharlstmError: lines are asked for, and no line end came for `LONGEST_LINE` characters.
    """
    beginning(writer.vocabulary, settings.prompt, settings.unknown)
    waits = settings.lines > 0 and settings.length == 0
    if waits and "\n" not in writer.vocabulary:
        raise UsageError("--lines needs a model that knows line ends, and this one never saw any: give a --length")
    parts = parallel.split(len(rngs), parallel.parts_for(len(rngs), threads))
    sizes = [part.stop - part.start for part in parts]
    made = side_by_side(lambda k: _generate(writer, settings, rngs[parts[k]]), sizes, "")
    return _with_line_ends(made, len(rngs)) if waits else made


def _with_line_ends(made: Iterator[list[str]], n: int) -> Iterator[list[str]]:
    """What n texts are made of, as long as their line ends are not too far apart."""
    chars = [0] * n  # since the last line end
    for pieces in made:
        for k, piece in enumerate(pieces):
            chars[k] = 0 if "\n" in piece else chars[k] + len(piece)
        if max(chars) > LONGEST_LINE:
            raise CharlstmError(
                f"the model wrote {LONGEST_LINE:,} characters without a line end: give a --length, or another --temp"
            )
        yield pieces


def _generate(writer: Writer, settings: SampleConfig, rngs: Sequence[np.random.Generator]) -> Iterator[list[str]]:
    n = len(rngs)
    vocabulary, characters = writer.vocabulary, writer.vocabulary.characters
    model_step = Stepper(writer.params, writer.config, n).step
    noise = _gumbel(rngs, len(vocabulary))
    endings = [_Ending(settings) for _ in range(n)]
    choice = (settings.temperature, settings.top_k, settings.top_p)

    if start := beginning(vocabulary, settings.prompt, settings.unknown):
        for character in vocabulary.encode(start):
            logits = model_step(np.full(n, character))
        ids = choose.draw(logits, next(noise), *choice)
    else:
        ids = np.array([rng.integers(len(vocabulary)) for rng in rngs])
    while True:
        yield [ending.take(characters[i]) for ending, i in zip(endings, ids.tolist(), strict=True)]
        if all(ending.over for ending in endings):
            return
        ids = choose.draw(model_step(ids), next(noise), *choice)


def _gumbel(rngs: Sequence[np.random.Generator], V: int) -> Iterator[Array]:
    """Standard Gumbel noise (V, n) without end, drawn in blocks; each text has the noise that it would have alone.

    float32 cuts it off at 16.6, a height that one number in 16 million would pass.
    """
    block = max(1, BLOCK_NUMBERS // V)
    while True:
        u = np.stack([rng.random((block, V), np.float32) for rng in rngs], axis=2)
        yield from -np.log(-np.log(np.maximum(u, SMALLEST)))


class _Ending:
    """Knows when one text is over, and holds back what may turn out to be the stop text."""

    def __init__(self, settings: SampleConfig) -> None:
        self.stop, self.lines, self.length = settings.stop, settings.lines, settings.length
        self.chars = self.line_ends = 0
        self.held = ""
        self.over = False

    def take(self, character: str) -> str:
        """Add a character; returns what can be shown now."""
        if self.over:
            return ""
        self.chars += 1
        self.line_ends += character == "\n"
        self.over = self.chars == self.length or (self.lines > 0 and self.line_ends == self.lines)
        if not self.stop:
            return character
        self.held += character
        if self.held.endswith(self.stop):
            self.over = True
            return self.held[: -len(self.stop)]
        keep = 0 if self.over else self._maybe_stop()
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown

    def _maybe_stop(self) -> int:
        """Length of the longest end of `held` that the stop text begins with."""
        return next(
            (k for k in range(min(len(self.stop), len(self.held)), 0, -1) if self.held.endswith(self.stop[:k])), 0
        )
