"""`sample -i`: type how a text begins, and it is written on; a line that begins with a slash changes how.

It asks on a terminal only. From a pipe it answers each line in turn, so that a script can hold the same conversation.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from charlstm import api, driving
from charlstm.display.words import may_embolden, visible
from charlstm.errors import CharlstmError, UsageError
from charlstm.render import can_show
from charlstm.settings import SampleConfig

HELP = """\
Type how a text begins, and it is written on; an empty line begins with nothing.
\\n in a line is a line end, and // begins a text that begins with a slash.
Ctrl-C stops a text that is being written, Ctrl-D leaves.
  /temp 0.5     below 1 safer, above 1 wilder; 0: always the likeliest
  /top-k 10     choose among the 10 likeliest characters; 0: among all
  /top-p 0.9    choose among the likeliest that make up this probability
  /length 500   new characters; 0: until Ctrl-C, or until /lines
  /lines 3      whole lines; 0: does not matter
  /seed 7       of the next text; each text after it has the next number
  /again        the same beginning once more
A word without its number tells what it is now."""
NUMBERS = {"temp": "temperature", "top-k": "top_k", "top-p": "top_p", "length": "length", "lines": "lines"}
"""Words that change a setting, and its name."""
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def converse(run: str | None, folder: Path, settings: SampleConfig, seed: int | None) -> int:
    """Answer what is typed until it ends; returns the exit status.

    Raises:
        KeyboardInterrupt: Ctrl-C while it waited for something to be typed.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("-i was given but standard input is closed: type into it, or pipe lines")
    model = api.load(run, folder)
    if seed is None:
        seed = api.draw_seed()
        _tell(f"seed {seed}")
    api.check_seed(seed)
    conversation = Conversation(model, settings, seed, can_show(sys.stdout))
    if sys.stdin.isatty():
        _tell(f"{model.name}: type how a text begins; /help tells what else there is, Ctrl-D leaves")
    for line in _typed():
        conversation.answer(line)
    return 0


def _typed() -> Iterator[str]:
    """The lines that are typed, asked for where somebody can see it."""
    asks = sys.stdin.isatty()
    edits = asks and sys.stdout.isatty()
    sys.stdin.reconfigure(errors="replace", **({} if asks else {"encoding": "utf-8"}))  # type: ignore[union-attr]
    if edits:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() edits lines once it is there
    try:
        while True:
            if edits:
                yield input("> ")  # on stdout, because readline draws there; it is the same terminal
                continue
            if asks:
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            yield line.removesuffix("\n")
    except (EOFError, KeyboardInterrupt) as ended:
        if asks:
            print(file=sys.stderr)
        if isinstance(ended, KeyboardInterrupt):
            raise


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """While it lasts, Ctrl-C is put down in the list: an exception could come where Python throws it away, in a finalizer."""
    noted: list[int] = []
    with driving.handlers_set({"SIGINT": lambda number, frame: noted.append(number)}):
        yield noted


def _tell(sentence: str) -> None:
    print(visible(sentence), file=sys.stderr, flush=True)


@dataclass
class Conversation:
    """Somebody and a model."""

    model: api.Model
    settings: SampleConfig
    seed: int  # of the next text
    out: TextIO
    beginning: str = ""

    def answer(self, line: str) -> None:
        """Do what a line asks for."""
        if line.startswith("/") and not line.startswith("//"):
            self._obey(*line[1:].split())
            return
        self.beginning = (line[1:] if line.startswith("//") else line).replace("\\n", "\n")
        self._write()

    def _obey(self, word: str = "help", *values: str) -> None:
        if word == "help":
            _tell(HELP)
        elif word == "again":
            self._write()
        elif word in NUMBERS or word == "seed":
            self._set(word, values)
        else:
            _tell(f"there is no /{word}: /help tells what there is, and // begins a text with a slash")

    def _set(self, word: str, values: tuple[str, ...]) -> None:
        now = self.seed if word == "seed" else getattr(self.settings, NUMBERS[word])
        try:
            if values:
                (text,) = values
                now = type(now)(text)
                if word == "seed":
                    api.check_seed(now)
                    self.seed = now
                else:
                    self.settings = SampleConfig(**vars(self.settings) | {NUMBERS[word]: now})
            _tell(f"{word} {now:g}" if isinstance(now, float) else f"{word} {now}")
        except UsageError as error:
            _tell(str(error).replace("--", "/", 1))
        except ValueError:
            kind = "a number" if isinstance(now, float) else "a whole number"
            _tell(f"/{word} takes {kind}, as in '/{word} {now}'")

    def _write(self) -> None:
        """Write on from the beginning; Ctrl-C ends the text and nothing else."""
        if strange := self.model.strange(self.beginning):
            _tell(f"the model never saw {strange}: left out")
        on_terminal = self.out.isatty()
        last = prompt = self.model.readable(self.beginning, "skip")
        bold = prompt and may_embolden(self.out)
        try:
            self.out.write(f"{BOLD}{visible(prompt)}{PLAIN}" if bold else visible(prompt) if on_terminal else prompt)
            settings = replace(self.settings, prompt=prompt)
            with _interrupts_noted() as interrupts:
                for piece in self.model.sample(**vars(settings), seed=self.seed):
                    if interrupts:
                        last = ""
                        break
                    self.out.write(visible(piece) if on_terminal else piece)
                    self.out.flush()
                    last = piece
        except CharlstmError as error:
            _tell(str(error))
        except KeyboardInterrupt:  # before or after the text
            last = ""
        self.seed += 1
        if not last.endswith("\n"):
            self.out.write("\n")
        self.out.flush()
