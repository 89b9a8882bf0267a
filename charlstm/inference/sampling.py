"""Text generation: yields characters from a model, with one random generator per text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from charlstm.errors import CharlstmError, PromptError, UsageError
from charlstm.inference import drafts
from charlstm.inference.drafts import Draft, Ending
from charlstm.inference.noise import Noise
from charlstm.nn import decoding
from charlstm.nn.config import ModelConfig
from charlstm.nn.hazard import LineAccount, LineHazard
from charlstm.nn.stepper import Stepper
from charlstm.nn.threads import shards_for, split
from charlstm.nn.types import Array, Arrays, Ids
from charlstm.processes import run_in_processes
from charlstm.settings import SampleConfig
from charlstm.text.lines import STOPS, WIDE_STOPS, opening
from charlstm.text.vocabulary import Vocabulary, describe_some

if TYPE_CHECKING:
    from charlstm.inference.novelty import Passages

PIECE_CHARS = 16
"""Characters per piece of several texts."""


@dataclass(frozen=True)
class CharModel:
    """A model as sampling needs it: sizes, parameters and vocabulary."""

    config: ModelConfig
    params: Arrays
    vocabulary: Vocabulary
    line_chars: tuple[int, ...] = ()  # quantiles of the lengths of the text's lines: see `text.lines`


def strip_unknown(vocabulary: Vocabulary, prompt: str, unknown: str) -> str:
    """Return the prompt without the characters that the model does not know.

    Raises:
        PromptError: the prompt has such characters, and `unknown` is ``error`` rather than ``skip``; or it has no others.
    """
    unknown_chars = vocabulary.unknown(prompt)
    if unknown_chars and unknown == "error":
        instead = "use other characters, or `unknown` skip"
        if "\\" in unknown_chars and "\\n" in prompt:
            instead = "for a line end, use `prompt_file`, or $'...\\n' in the shell"
        raise PromptError(f"the model never saw {describe_some(unknown_chars)} in the prompt: {instead}")
    known = "".join(c for c in prompt if c in vocabulary)
    if prompt and not known:
        raise PromptError(f"the model never saw any character of the prompt, {prompt[:40]!r}: use other characters")
    return known


def start_text(char_model: CharModel, prompt: str, unknown: str) -> str:
    """Return what the model reads before it writes: the prompt, or else its `opening`.

    Raises:
        PromptError: see `strip_unknown`.
    """
    return strip_unknown(char_model.vocabulary, prompt, unknown) or opening(
        char_model.vocabulary, char_model.line_chars
    )


def check(char_model: CharModel, settings: SampleConfig) -> None:
    """Check that a model can do what is asked of it.

    Raises:
        PromptError: see `strip_unknown`.
        UsageError: only lines limit the text, and the model knows no line end; or the stop text can't appear; or the
            prompt is too long.
    """
    vocabulary = char_model.vocabulary
    prompt = strip_unknown(vocabulary, settings.prompt, settings.unknown)
    chars = len(prompt.rpartition("\n")[2] if settings.lines else prompt)
    if 0 < settings.max_chars <= chars:
        raise UsageError(f"the prompt already has {chars:,} characters: raise `max_chars`, or use a shorter prompt")
    if _waits(settings) and "\n" not in vocabulary:
        raise UsageError("`lines` needs line ends, but this model never saw any: set `length` instead")
    if unknown_chars := vocabulary.unknown(settings.stop):
        raise UsageError(
            f"the model never saw {describe_some(unknown_chars)}, so the `stop` text can't appear: use other characters"
        )


def _waits(settings: SampleConfig) -> bool:
    """Return whether only line ends can end a text."""
    return settings.lines > 0 and (settings.length == 0 or settings.max_chars > 0)


def generate(
    char_model: CharModel,
    settings: SampleConfig,
    rngs: Sequence[np.random.Generator],
    threads: int = 1,
    passages: Passages | None = None,
) -> Iterator[list[str]]:
    """Generate texts in parallel, one per random generator.

    Without a prompt, a text begins as if after a line end, or after an empty line where these separate paragraphs; if the
    model knows no line end, it begins with a random character.

    Args:
        char_model: the model.
        settings: how to sample.
        rngs: one random generator per text; a text does not depend on the others.
        threads: number of cores to use.
        passages: for `no_copy`, those of that length in the training text.

    Yields:
        for every generated character, or for some if several texts end together, one string per text: what can be shown
        of it now, which is empty once the text has ended, and while it is a draft or may be the start of the stop text.

    Raises:
        PromptError, UsageError: see `check`.
        CharlstmError: only lines limit the text, and none ended within `LONGEST_LINE` characters, or none ever will, because
            temperature 0 goes round in a circle; a draft was bad too often (see `Draft`); or a process died.
    """
    check(char_model, settings)
    shards = split(len(rngs), shards_for(len(rngs), threads))
    sizes = [part.stop - part.start for part in shards]
    jobs = [partial(_generate, char_model, settings, rngs[part], passages) for part in shards]
    made = run_in_processes(jobs, sizes, "")
    return _with_line_ends(made, len(rngs)) if _waits(settings) else made


def _with_line_ends(made: Iterator[list[str]], n: int) -> Iterator[list[str]]:
    """Yield the pieces of n texts unchanged; raise CharlstmError if a text goes too long without a line end."""
    chars = [0] * n  # since the last line end
    for pieces in made:
        for k, piece in enumerate(pieces):
            chars[k] = 0 if "\n" in piece else chars[k] + len(piece)
        if max(chars) > drafts.LONGEST_LINE:
            raise CharlstmError(drafts.no_line_end())
        yield pieces


def _generate(
    char_model: CharModel,
    settings: SampleConfig,
    rngs: Sequence[np.random.Generator],
    passages: Passages | None,
) -> Iterator[list[str]]:
    n, vocabulary = len(rngs), char_model.vocabulary
    prompt = strip_unknown(vocabulary, settings.prompt, settings.unknown)
    streams = _Streams(char_model, settings, rngs, prompt)
    if not (settings.stop or settings.lines or settings.max_chars or settings.no_copy):
        yield from streams.pieces(settings.length)
        return
    endings = [Ending(settings) for _ in range(n)]
    checked: list[Draft[_Stream]] = []
    if settings.max_chars or settings.no_copy:
        checked = [Draft(settings, prompt, passages, *streams.save_and_restore(k)) for k in range(n)]
        if not streams.begun:
            for k, character in streams.step():
                checked[k].begin_with(character)
    circle = _Circle(streams) if settings.temperature == 0 and _waits(settings) else None

    while True:
        pieces = [""] * n
        for k, character in streams.step():
            if not checked:
                pieces[k] = endings[k].take(character)
            elif not endings[k].over:
                pieces[k] = "".join(map(endings[k].take, checked[k].take(character)))
                if checked[k].over:
                    pieces[k] += endings[k].finish()
        yield pieces
        if all(ending.over for ending in endings):
            return
        if circle is not None:
            circle.check("\n" in pieces[0])
        streams.drop([k for k in streams.texts if endings[k].over])


@dataclass(frozen=True)
class _Stream:
    """The state of one stream of text."""

    recurrent: Array
    id: int
    account: tuple[float, float] | None  # see `hazard.LineAccount`


class _Streams:
    """The streams of several texts, which advance together by a character; those that have ended are dropped."""

    def __init__(
        self, char_model: CharModel, settings: SampleConfig, rngs: Sequence[np.random.Generator], prompt: str
    ) -> None:
        """Read the prompt, or what comes before a text."""
        self.char_model, n = char_model, len(rngs)
        vocabulary = char_model.vocabulary
        self.characters = vocabulary.characters
        self.texts = list(range(n))  # the texts that the streams belong to
        self.stepper = Stepper(char_model.params, char_model.config, n)
        self.how = decoding_of(vocabulary, settings)
        self.noise = Noise(rngs, len(vocabulary))
        self.lines: LineAccount | None = None
        if any(char_model.line_chars) and not self.how.exact:
            hazard = LineHazard(char_model.line_chars)
            self.lines = LineAccount(hazard, n, len(prompt.rpartition("\n")[2]))
        if start := start_text(char_model, settings.prompt, settings.unknown):
            *before, last = vocabulary.encode(start).tolist()
            for character in before:
                self.stepper.step(np.full(n, character))
            self.ids = np.full(n, last)  # chosen, and not read yet
            self.begun = True
        else:
            self.ids = np.array([rng.integers(len(vocabulary)) for rng in rngs])
            self.begun = False

    def step(self) -> list[tuple[int, str]]:
        """Choose the next characters; return them with the numbers of their texts."""
        ids = self._choose()
        return [(text, self.characters[i]) for text, i in zip(self.texts, ids.tolist(), strict=True)]

    def pieces(self, length: int) -> Iterator[list[str]]:
        """Yield texts that all have the same length (0: no end); several in pieces, because Python's part of each character counts."""
        left = length or math.inf
        while left > 0 and len(self.texts) == 1:
            yield [self.characters[self._choose()[0]]]
            left -= 1
        while left > 0:
            ids = np.stack([self._choose() for _ in range(int(min(PIECE_CHARS, left)))], axis=1)
            yield ["".join(map(self.characters.__getitem__, text)) for text in ids.tolist()]
            left -= ids.shape[1]

    def _choose(self) -> Ids:
        if self.begun:
            logits = self.stepper.step(self.ids)
            self.ids = decoding.sample(logits, self.noise.take(), self.how, self.lines, self.ids)
        self.begun = True
        return self.ids

    def save_and_restore(self, text: int) -> tuple[Callable[[], _Stream], Callable[[_Stream, str], None]]:
        """Return the functions that a `Draft` needs."""

        def save() -> _Stream:
            k, lines = self.texts.index(text), self.lines
            account = None if lines is None else (float(lines.chars[k]), float(lines.spent[k]))
            return _Stream(self.stepper.save(k), int(self.ids[k]), account)

        def restore(state: _Stream, character: str) -> None:
            k = self.texts.index(text)
            self.stepper.restore(k, state.recurrent)
            self.ids[k] = self.characters.index(character) if character else state.id
            if self.lines is not None and state.account is not None:
                self.lines.chars[k], self.lines.spent[k] = (0, 0) if character == "\n" else state.account

        return save, restore

    def drop(self, texts: Sequence[int]) -> None:
        """Drop the streams of texts that have ended, as soon as half of the streams have."""
        if len(texts) * 2 < len(self.texts):
            return
        ended = set(texts)
        kept = [k for k, text in enumerate(self.texts) if text not in ended]
        smaller = Stepper(self.char_model.params, self.char_model.config, len(kept))
        for new, k in enumerate(kept):
            smaller.restore(new, self.stepper.save(k))
        self.stepper, self.ids, self.texts = smaller, self.ids[kept], [self.texts[k] for k in kept]
        self.noise.keep(kept)
        if self.lines is not None:
            self.lines.chars, self.lines.spent = self.lines.chars[kept], self.lines.spent[kept]


class _Circle:
    """Detects that the model is in a state that it was in before, on the same line; at temperature 0 it never leaves."""

    def __init__(self, streams: _Streams) -> None:
        self.streams = streams
        self.seen: set[int] = set()

    def check(self, line_ended: bool) -> None:
        """Record the state of the first text, as all texts are the same.

        Raises:
            CharlstmError: the model goes round in a circle.
        """
        if line_ended:
            self.seen.clear()
        state = hash((self.streams.stepper.save(0).tobytes(), int(self.streams.ids[0])))
        if state in self.seen:
            raise CharlstmError(
                "at `temperature` 0 the model goes round in a circle without a line end: set `temperature` to 0.5, or `length`"
            )
        self.seen.add(state)


def decoding_of(vocabulary: Vocabulary, settings: SampleConfig) -> decoding.Decoding:
    """Return how characters are chosen."""
    endings = [c for c in STOPS + WIDE_STOPS if c in vocabulary]
    return decoding.Decoding(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
        line_end=int(vocabulary.encode("\n")[0]) if "\n" in vocabulary else None,
        ends=tuple(vocabulary.encode("".join(endings)).tolist()),
        runs=frozenset(k for k, c in enumerate(vocabulary.characters) if c != "\n" and not c.isalnum()),
    )
