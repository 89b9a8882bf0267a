"""Writing text: a generator of characters from a model and a random generator of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from charlstm.errors import PromptError
from charlstm.nn import choose, model
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays
from charlstm.settings import SampleConfig
from charlstm.vocabulary import Vocabulary, describe

DRAWS = 256
"""Uniform numbers are drawn in blocks of so many characters."""


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
        named = ", ".join(describe(c) for c in strange[:8]) + (" and more" if len(strange) > 8 else "")
        raise PromptError(
            f"the model never saw {named} of the prompt: take other characters, or --unknown skip to leave them out"
        )
    return "".join(c for c in prompt if c in vocabulary)


def generate(writer: Writer, settings: SampleConfig, rng: np.random.Generator, n: int = 1) -> Iterator[list[str]]:
    """Write n texts side by side.

    Without a prompt a text begins as after a line end; where the model knows no line end, with a character drawn at random.

    Yields:
        for every character made, n strings: what can be shown of each text (nothing once it has ended, and nothing while
        it may be the beginning of the stop text).
    """
    vocabulary = writer.vocabulary
    weights = model.step_weights(writer.params, writer.config)
    state = model.State.zero(writer.config, n)
    uniform = _uniform_numbers(rng, n)
    prompt = readable_prompt(vocabulary, settings.prompt, settings.unknown)
    endings = [_Ending(settings) for _ in range(n)]

    if not prompt and "\n" in vocabulary:
        prompt = "\n"
    if prompt:
        for character in vocabulary.encode(prompt):
            logits = model.step(weights, np.full(n, character), state)
        p = choose.probabilities(logits, settings.temperature, settings.top_k, settings.top_p)
    else:
        p = np.full((len(vocabulary), n), 1 / len(vocabulary))
    while True:
        ids = choose.draw(p, next(uniform))
        shown = [ending.take(vocabulary.characters[i]) for ending, i in zip(endings, ids, strict=True)]
        yield shown
        if all(ending.over for ending in endings):
            return
        logits = model.step(weights, ids, state)
        p = choose.probabilities(logits, settings.temperature, settings.top_k, settings.top_p)


def _uniform_numbers(rng: np.random.Generator, n: int) -> Iterator[np.ndarray]:
    while True:
        yield from rng.random((DRAWS, n))


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
        self.held += character
        if self.stop and self.held.endswith(self.stop):
            self.over = True
            return self.held[: -len(self.stop)]
        self.over = self.chars == self.length or (self.lines > 0 and self.line_ends == self.lines)
        keep = 0 if self.over else self._maybe_stop()
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown

    def _maybe_stop(self) -> int:
        """Length of the longest end of `held` that the stop text begins with."""
        return next(
            (k for k in range(min(len(self.stop), len(self.held)), 0, -1) if self.held.endswith(self.stop[:k])), 0
        )
