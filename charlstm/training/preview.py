"""Sample text shown during training, with a state and random generator of its own so that it can't affect the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from charlstm import events
from charlstm.inference import sampling
from charlstm.settings import RunOptions, SampleConfig
from charlstm.text.ids import TextIds
from charlstm.training.state import TrainState

EARLY = (0.1, 0.3, 0.6)
"""The first previews come at these fractions of the interval (at 1, 3 and 6 s of 10 s), because the model changes fastest then."""
SHARE, EARLY_SHARE = 0.006, 0.05
"""Fraction of the training time spent on previews, and on early ones; including drawing, a display costs less than 2 %."""
CHARS = 400
PIECE_S = 0.004
PROMPT_CHARS, SEARCHED_CHARS = 60, 2000
"""Maximum length of a prompt (a line of the training text or the start of one), and of the text searched for a line."""


class Preview:
    """Generates preview text when it is due, each sample prompted by another line of the training text."""

    def __init__(self, run: TrainState, options: RunOptions, train_ids: TextIds, clock: Callable[[], float]) -> None:
        self.run, self.options, self.train_ids, self.clock = run, options, train_ids, clock
        self.rng = np.random.default_rng(run.config.seed)
        self.settings = SampleConfig(temperature=options.preview_temperature, length=CHARS)
        self.text: Iterator[list[str]] | None = None
        self.start_s = clock()
        self.early = [self.start_s + share * options.preview_every_s for share in EARLY]
        self.next_piece = self.next_new = self.early.pop(0)

    def on_progress(self, event: events.Progress) -> Iterator[events.Event]:
        """Generate more text if it is due."""
        now = self.clock()
        if self.options.preview_every_s <= 0 or now < self.next_piece:
            return
        new = now >= self.next_new
        prompt = ""
        if new:
            prompt = self._prompt()
            char_model = sampling.CharModel(self.run.shape, self.run.averaged, self.run.vocabulary, self.run.line_chars)
            self.text = sampling.generate(char_model, replace(self.settings, prompt=prompt), [self.rng])
            self.next_new = self._next_new(now)
        text = self._piece(now + PIECE_S if self.options.stream_preview else None)
        done = self.clock()
        share = EARLY_SHARE if done < self.start_s + self.options.preview_every_s else SHARE
        self.next_piece = done + (done - now) / share
        if not self.options.stream_preview:
            self.next_piece = max(self.next_piece, self.next_new)
        if text:
            yield events.Sampled(**events.position(event), text=text, new=new, prompt=prompt)

    def _next_new(self, now: float) -> float:
        """Return when the next sample begins: at the next early time, at the first full interval, or an interval from now."""
        self.early = [early for early in self.early if early > now]
        if self.early:
            return self.early.pop(0)
        first = self.start_s + self.options.preview_every_s
        return first if first > now else now + self.options.preview_every_s

    def _prompt(self) -> str:
        """Return a line of the training text with its line end, the start of a long line, or "" if no line is found."""
        start = int(self.rng.integers(len(self.train_ids)))
        near = self.run.vocabulary.decode(self.train_ids[start : start + SEARCHED_CHARS])
        line, end, _ = near.partition("\n")[2].lstrip().partition("\n")  # skip what may be part of a line
        if len(line) > PROMPT_CHARS:
            return line[:PROMPT_CHARS].rsplit(None, 1)[0]
        return line + end if end else ""

    def _piece(self, until: float | None) -> str:
        """Return the text generated until the clock reaches `until`, or all of it if that is None."""
        pieces: list[str] = []
        for shown in self.text or ():
            pieces += shown
            if until is not None and self.clock() >= until:
                break
        return "".join(pieces)
