"""A text prepared for a model to predict, character by character, as `eval` and `evaluate` do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.errors import UsageError
from charlstm.inference import evaluation, sampling
from charlstm.inference.sampling import CharModel
from charlstm.nn.config import Range
from charlstm.settings import Unknown, require
from charlstm.text.corpus import Corpus
from charlstm.text.vocabulary import describe_some


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text prepared for evaluation; iterating over it yields the negative log-likelihoods, one block at a time."""

    char_model: CharModel
    ids: NDArray[Any]  # (N,), the prompt included
    context_chars: int  # number of leading characters that are not predicted
    left_out: int  # number of characters dropped because the model never saw them
    context: int
    in_one: bool  # read as one stream, whatever the length

    @property
    def chars(self) -> int:
        """The number of characters that are predicted."""
        return len(self.ids) - self.context_chars

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Yield indices into `ids`, and the negative log-likelihood in nats of the characters there."""
        pairs = len(self.ids) - 1
        starts, length = evaluation.streams_of(pairs, pairs if self.in_one and not self.context else self.context)
        for places, nats in evaluation.char_nll(
            self.char_model.params, self.char_model.config, self.ids, starts, length
        ):
            counted = places >= self.context_chars
            yield places[counted], nats[counted]

    def mean_nats(self) -> float:
        """Return the mean negative log-likelihood in nats per character."""
        return sum(float(nats.sum(dtype=np.float64)) for _, nats in self) / self.chars


def score(
    char_model: CharModel, text: str | Corpus, prompt: str | None, context: int, unknown: Unknown, name: str
) -> ScoredText:
    """Prepare a text for evaluation; see `charlstm.api.Model.evaluate` for the arguments.

    Args:
        name: the run, for the message about characters that it never saw.

    Raises:
        UsageError: the text is too short, or it has characters that the model never saw.
    """
    require("context", context, Range(0))
    vocabulary = char_model.vocabulary
    if isinstance(text, str):
        unknown_chars = vocabulary.unknown(text)
        ids = vocabulary.encode("".join(c for c in text if c in vocabulary) if unknown_chars else text)
        left_out = len(text) - len(ids)
    else:
        ids, unknown_chars = vocabulary.translate(text.ids, text.vocabulary)
        left_out = len(text.ids) - len(ids)
    if unknown_chars and unknown == "error":
        raise UsageError(
            f"the model never saw {describe_some(unknown_chars)} of the text: add `unknown` skip to drop such characters, "
            f"or learn them with 'charlstm train TEXT --init-from {name}'"
        )
    context_chars = 1
    if prompt is not None:
        start = vocabulary.encode(sampling.start_text(vocabulary, prompt, unknown))
        context_chars, ids = max(1, len(start)), np.concatenate([start, ids])
    if len(ids) <= context_chars:
        raise UsageError("the text is too short: give one with at least two characters that the model knows")
    return ScoredText(char_model, ids, context_chars, left_out, context, prompt is not None)
