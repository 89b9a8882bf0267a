"""What of a text can be shown: where it ends, and drafts that are checked before anyone sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from charlstm.errors import CharlstmError
from charlstm.settings import SampleConfig
from charlstm.text.lines import sentence_ends

if TYPE_CHECKING:
    from charlstm.inference.novelty import Passages

S = TypeVar("S")
"""The state of a stream of text, as its owner saves it."""

TRIES = 200
"""Maximum number of drafts of the same line or sentence."""
LONGEST_LINE = 100_000
"""Maximum number of characters without a line end when only `lines` is set; a model in a loop may never write one."""


class Ending:
    """Detects when one text has ended, and holds back what may be the start of the stop text."""

    def __init__(self, settings: SampleConfig) -> None:
        self.stop, self.lines = settings.stop, settings.lines
        self.length = 0 if settings.max_chars else settings.length
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

    def finish(self) -> str:
        """End the text; return what was held back."""
        self.over = True
        return self.held

    def _maybe_stop(self) -> int:
        """Return the length of the longest suffix of `held` that is a prefix of the stop text."""
        return next(
            (k for k in range(min(len(self.stop), len(self.held)), 0, -1) if self.held.endswith(self.stop[:k])), 0
        )


@dataclass
class Draft(Generic[S]):
    """The line or sentence that is being written, which is shown once it is found good, and otherwise written anew.

    With `lines`, the unit is a line. A line that gets longer than `max_chars` ends after its last sentence that fits. Without
    `lines`, the unit is a sentence or a line, and the text ends after the last one that fits.

    A unit is bad if it contains a copied passage, or has no place to end. With `no_copy`, when the training text is at hand,
    a line that ends with a part of a word is bad as well. The stream then returns to where the unit began,
    and goes on from there with other random numbers. So texts have the model's distribution, on the condition that every
    unit is good.
    """

    settings: SampleConfig
    prompt: str
    passages: Passages | None  # of the training text, if `no_copy` is set
    save: Callable[[], S]
    restore: Callable[[S, str], None]  # go back to a state; if the character is not empty, it replaces the last one
    over: bool = False  # the text has ended; what remains of the draft is dropped
    tries: int = 0
    held: str = ""
    first: str = ""  # the start of the unit, which was read with the end of the one before
    end: tuple[int, S] | None = None  # of the last sentence in the line: characters before it, and the state there
    begin: S = field(init=False)

    def __post_init__(self) -> None:
        self.begin = self.save()
        self.before = len(self.prompt.rpartition("\n")[2] if self.settings.lines else self.prompt)
        self.tail = self._end_of(self.prompt)
        self.shown_chars = 0

    def begin_with(self, character: str) -> None:
        """Set the first character of a text without a prompt, which all drafts have."""
        self.held = self.first = character
        self.begin = self.save()

    def take(self, character: str) -> str:
        """Add a character; return the unit if it is complete and good."""
        self.held += character
        if len(self.held) > LONGEST_LINE:
            raise CharlstmError(no_line_end())
        stop = self.settings.stop
        if stop and self.held.endswith(stop):
            return self._complete(self.held, "")
        return self._line(character) if self.settings.lines else self._sentence(character)

    def _line(self, character: str) -> str:
        limit = self.settings.max_chars
        if character == "\n":
            return self._complete(self.held, "")
        chars = len(self.held) - 1
        if limit and self.before + chars <= limit and sentence_ends(self.held[:-1], character):
            self.end = (chars, self.save())
        if limit and self.before + len(self.held) > limit:
            if self.end is None:
                return self._again(f"was longer than {limit:,} characters: raise `max_chars`")
            chars, state = self.end
            self.restore(state, "\n")
            return self._complete(self.held[:chars] + "\n", "")
        return ""

    def _sentence(self, character: str) -> str:
        limit, unit = self.settings.max_chars, self.held[:-1]
        fits = not limit or self.before + len(unit) <= limit
        if fits and unit.strip() and (character == "\n" or sentence_ends(unit, character)):
            return self._complete(unit, character)
        if not fits:
            if self.shown_chars == 0:
                return self._again(f"had no end within {limit:,} characters: raise `max_chars`")
            self.over = True
        elif not limit and 0 < self.settings.length <= self.shown_chars + len(self.held):
            return self._complete(self.held, "")
        return ""

    def _complete(self, unit: str, first: str) -> str:
        if self.passages is not None and self.passages.occur_in(self.tail + unit):
            remedy = (
                "`no_copy` or `temperature`" if self.settings.temperature else "`no_copy`, or set `temperature` to 0.7"
            )
            return self._again(f"contained {self.settings.no_copy:,} characters of the training text: raise {remedy}")
        if self.passages is not None and unit.endswith("\n") and self.passages.cut_off(unit.removesuffix("\n")):
            return self._again("ended within a word: train longer, or leave out `no_copy`")
        self.shown_chars += len(unit)
        self.tail = self._end_of(self.tail + unit)
        self.before = 0 if self.settings.lines else self.before + len(unit)
        self.held = self.first = first
        self.begin, self.end, self.tries = self.save(), None, 0
        return unit

    def _again(self, reason: str) -> str:
        """Go back to the start of the unit.

        Raises:
            CharlstmError: there were too many drafts; at temperature 0 all would be the same.
        """
        self.tries += 1
        unit = "line" if self.settings.lines else "sentence"
        if self.settings.temperature == 0:
            raise CharlstmError(f"the only {unit} that the model writes at `temperature` 0 {reason}")
        if self.tries == TRIES:
            raise CharlstmError(f"each of {TRIES} drafts of a {unit} {reason}")
        self.restore(self.begin, "")
        self.held, self.end = self.first, None
        return ""

    def _end_of(self, text: str) -> str:
        """Return the end of a text that may be the start of a copied passage."""
        chars = self.settings.no_copy - 1
        return text[-chars:] if chars > 0 else ""


def no_line_end() -> str:
    """Return the message about a line that does not end."""
    return f"the model wrote {LONGEST_LINE:,} characters without a line end: set `length`, or another `temperature`"
