"""A text prepared for a model to predict, character by character, as `eval` and `evaluate` do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm import blas
from charlstm.errors import CharlstmError, CorpusError, UsageError
from charlstm.inference import adaptation, evaluation, sampling
from charlstm.inference.sampling import CharModel
from charlstm.nn.config import Range
from charlstm.nn.threads import split
from charlstm.processes import run_in_processes
from charlstm.settings import AUTO, Unknown, require
from charlstm.text import again
from charlstm.text.corpus import Corpus
from charlstm.text.identity import TextInfo
from charlstm.text.ids import TextIds
from charlstm.text.vocabulary import describe_some

PARALLEL_CHARS = 200_000
"""Minimum number of characters for which further processes pay off."""


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text prepared for evaluation; iterating over it yields the negative log-likelihoods, one block at a time."""

    char_model: CharModel
    ids: TextIds  # (N,), the prompt included
    context_chars: int  # number of leading characters that are not predicted
    left_out: int  # number of characters dropped because the model never saw them
    context: int
    in_one: bool  # read as one stream, whatever the length
    name: str  # of the run
    adapt: bool = False  # learn from each segment after predicting it

    @property
    def chars(self) -> int:
        """The number of characters that are predicted."""
        return len(self.ids) - self.context_chars

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Yield indices into `ids`, and the negative log-likelihood in nats of the characters there.

        A long text is read on several cores, unless the model adapts to it.
        """
        params, config = self.char_model.params, self.char_model.config
        blocks = adaptation.char_nll(params, config, self.ids) if self.adapt else self._blocks()
        for places, nats in blocks:
            counted = places >= self.context_chars
            yield places[counted], nats[counted]

    def _blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        pairs = len(self.ids) - 1
        starts, length = evaluation.streams_of(pairs, pairs if self.in_one and not self.context else self.context)
        cores = min(blas.cores(), len(starts)) if pairs >= PARALLEL_CHARS else 1
        edges = [*starts.tolist(), pairs]
        jobs = [
            partial(
                _score_part, self.char_model, self.ids[edges[part.start] : edges[part.stop] + 1], starts[part], length
            )
            for part in split(len(starts), cores)
        ]
        nothing = np.zeros(0, np.intp), np.zeros(0, np.float32)
        for blocks in run_in_processes(jobs, [1] * cores, nothing):
            yield from blocks

    def mean_nats(self) -> float:
        """Return the mean negative log-likelihood in nats per character.

        Raises:
            CharlstmError: it is not a finite number, because the weights are too large.
        """
        return self.checked(sum(float(nats.sum(dtype=np.float64)) for _, nats in self) / self.chars)

    def checked(self, nats: float) -> float:
        """Return a loss; raise CharlstmError if it is not a finite number."""
        if not math.isfinite(nats):
            raise CharlstmError(
                f"the loss of the run {self.name!r} on this text is not a finite number: its weights are too large, so train it again"
            )
        return nats


def _score_part(
    char_model: CharModel, ids: TextIds, starts: NDArray[np.intp], length: int
) -> Iterator[list[tuple[NDArray[np.intp], NDArray[Any]]]]:
    """Score some stretches of a text; `ids` are those from the first start to the end of the last stretch."""
    first = starts[0]
    with np.errstate(all="ignore"):  # the caller checks for losses that are not finite
        for places, nll in evaluation.char_nll(char_model.params, char_model.config, ids, starts - first, length):
            yield [(places + first, nll)]


def read_held_out(info: TextInfo, val_fraction: float, name: str, cache: str | Path = AUTO) -> Corpus:
    """Read the held-out text of a run again.

    Raises:
        CorpusError: there is none, or the text of the run is missing, has changed, or came from standard input.
    """
    instead = "give the text to evaluate"
    text = again.read_for(info, name, "evaluation", instead, cache, held_out=True)
    if text.held_out is not None:
        return text.held_out
    _, ids = text.split(val_fraction)
    if not len(ids):
        raise CorpusError(f"the run {name!r} held out nothing: {instead}")
    return replace(text, ids=ids)


def score(
    char_model: CharModel,
    text: str | Corpus,
    prompt: str | None,
    context: int,
    unknown: Unknown,
    name: str,
    limit: int = 0,
    adapt: bool = False,
) -> ScoredText:
    """Prepare a text for evaluation; see `charlstm.api.Model.evaluate` for the arguments.

    Args:
        name: the run, for messages.
        limit: use only this many characters of the text; 0: all.

    Raises:
        UsageError: the text is too short, it has characters that the model never saw, or settings contradict each other.
    """
    if adapt and context:
        raise UsageError("`adapt` and `context` can't be combined: leave one of them out")
    require("context", context, Range(0))
    require("limit", limit, Range(0))
    text = text if not limit else text[:limit] if isinstance(text, str) else text.first(limit)
    vocabulary = char_model.vocabulary
    ids: TextIds
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
        start = vocabulary.encode(sampling.start_text(char_model, prompt, unknown))
        context_chars, ids = max(1, len(start)), np.concatenate([start, ids])
    if len(ids) <= context_chars:
        raise UsageError("the text is too short: give one with at least two characters that the model knows")
    return ScoredText(char_model, ids, context_chars, left_out, context, prompt is not None, name, adapt)
