"""Text generation: yields characters from a model, with one random generator per text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charlstm.errors import CharlstmError, PromptError, UsageError
from charlstm.nn import decoding
from charlstm.nn.config import ModelConfig
from charlstm.nn.stepper import Stepper
from charlstm.nn.threads import shards_for, split
from charlstm.nn.types import Array, Arrays
from charlstm.processes import run_in_processes
from charlstm.settings import SampleConfig
from charlstm.text.vocabulary import Vocabulary, describe_some

SMALLEST = np.float32(1e-30)
"""Replaces a uniform random number of 0, which has no logarithm."""
BLOCK_NUMBERS = 1 << 14
"""Approximate number of random numbers drawn at a time."""
LONGEST_LINE = 100_000
"""Maximum number of characters without a line end when only --lines is set; a model in a loop may never write one."""


@dataclass(frozen=True)
class CharModel:
    """A model as sampling needs it: sizes, parameters and vocabulary."""

    config: ModelConfig
    params: Arrays
    vocabulary: Vocabulary


def strip_unknown(vocabulary: Vocabulary, prompt: str, unknown: str) -> str:
    """Return the prompt without the characters that the model does not know.

    Raises:
        PromptError: the prompt has such characters, and `unknown` is ``error`` rather than ``skip``.
    """
    unknown_chars = vocabulary.unknown(prompt)
    if unknown_chars and unknown == "error":
        raise PromptError(
            f"the model never saw {describe_some(unknown_chars)} in the prompt: use other characters, or `unknown` skip"
        )
    return "".join(c for c in prompt if c in vocabulary)


def start_text(vocabulary: Vocabulary, prompt: str, unknown: str) -> str:
    """Return what the model reads before it writes: the prompt, or else a line end if the model knows one, or "".

    Raises:
        PromptError: see `strip_unknown`.
    """
    return strip_unknown(vocabulary, prompt, unknown) or ("\n" if "\n" in vocabulary else "")


def generate(
    char_model: CharModel, settings: SampleConfig, rngs: Sequence[np.random.Generator], threads: int = 1
) -> Iterator[list[str]]:
    """Generate texts in parallel, one per random generator.

    Without a prompt, a text begins as if after a line end; if the model knows no line end, it begins with a random
    character.

    Args:
        writer: the model.
        settings: how to sample.
        rngs: one random generator per text; a text does not depend on the others.
        threads: number of cores to use.

    Yields:
        for every generated character, one string per text: what can be shown of it now, which is empty once the text
        has ended, and while it may be the start of the stop text.

    Raises:
        PromptError: see `strip_unknown`.
        UsageError: only lines limit the text, and the model knows no line end.
        CharlstmError: only lines limit the text, and none ended within `LONGEST_LINE` characters; or a process died.
    """
    start_text(char_model.vocabulary, settings.prompt, settings.unknown)
    waits = settings.lines > 0 and settings.length == 0
    if waits and "\n" not in char_model.vocabulary:
        raise UsageError("`lines` needs line ends, but this model never saw any: set `length` instead")
    shards = split(len(rngs), shards_for(len(rngs), threads))
    sizes = [part.stop - part.start for part in shards]
    made = run_in_processes(lambda k: _generate(char_model, settings, rngs[shards[k]]), sizes, "")
    return _with_line_ends(made, len(rngs)) if waits else made


def _with_line_ends(made: Iterator[list[str]], n: int) -> Iterator[list[str]]:
    """Yield the pieces of n texts unchanged; raise CharlstmError if a text goes too long without a line end."""
    chars = [0] * n  # since the last line end
    for pieces in made:
        for k, piece in enumerate(pieces):
            chars[k] = 0 if "\n" in piece else chars[k] + len(piece)
        if max(chars) > LONGEST_LINE:
            raise CharlstmError(
                f"the model wrote {LONGEST_LINE:,} characters without a line end: set `length`, or another `temperature`"
            )
        yield pieces


def _generate(
    char_model: CharModel, settings: SampleConfig, rngs: Sequence[np.random.Generator]
) -> Iterator[list[str]]:
    n = len(rngs)
    vocabulary, characters = char_model.vocabulary, char_model.vocabulary.characters
    model_step = Stepper(char_model.params, char_model.config, n).step
    noise = _gumbel(rngs, len(vocabulary))
    endings = [_Ending(settings) for _ in range(n)]
    choice = (settings.temperature, settings.top_k, settings.top_p)

    if start := start_text(vocabulary, settings.prompt, settings.unknown):
        for character in vocabulary.encode(start):
            logits = model_step(np.full(n, character))
        ids = decoding.sample(logits, next(noise), *choice)
    else:
        ids = np.array([rng.integers(len(vocabulary)) for rng in rngs])
    while True:
        yield [ending.take(characters[i]) for ending, i in zip(endings, ids.tolist(), strict=True)]
        if all(ending.over for ending in endings):
            return
        ids = decoding.sample(model_step(ids), next(noise), *choice)


def _gumbel(rngs: Sequence[np.random.Generator], V: int) -> Iterator[Array]:
    """Yield standard Gumbel noise, (V, n), endlessly; each text gets the noise that it would get alone.

    In float32 the noise is cut off at 16.6, which one number in 16 million would exceed.
    """
    block = max(1, BLOCK_NUMBERS // V)
    while True:
        u = np.stack([rng.random((block, V), np.float32) for rng in rngs], axis=2)
        yield from -np.log(-np.log(np.maximum(u, SMALLEST)))


class _Ending:
    """Detects when one text has ended, and holds back what may be the start of the stop text."""

    def __init__(self, settings: SampleConfig) -> None:
        self.stop, self.lines, self.length = settings.stop, settings.lines, settings.length
        self.chars = self.line_ends = 0
        self.held = ""
        self.over = False

    def take(self, character: str) -> str:
        """Add a character; return what can be shown now."""
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
        """Return the length of the longest suffix of `held` that is a prefix of the stop text."""
        return next(
            (k for k in range(min(len(self.stop), len(self.held)), 0, -1) if self.held.endswith(self.stop[:k])), 0
        )
