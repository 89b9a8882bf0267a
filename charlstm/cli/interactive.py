"""`sample -i`: read prompts and continue each one; a line that starts with a slash is a command.

It prints a prompt on a terminal only. A script can pipe in the same lines.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from charlstm import api
from charlstm.cli import hints, signals
from charlstm.cli.sample import can_show
from charlstm.display.formatting import inline, may_embolden, visible
from charlstm.errors import CharlstmError, UsageError
from charlstm.settings import SampleConfig, check_seed

HELP = """\
Type the start of a text, and the model continues it; an empty line is an empty prompt.
Type \\n for a newline, and // for a slash at the start of a text.
Ctrl-C stops the current text, Ctrl-D exits.
  /temp 0.5     sampling temperature: below 1 is safer, above 1 is wilder, 0 always picks the likeliest
  /top-k 10     choose among the 10 likeliest characters (0: all)
  /top-p 0.9    choose among the likeliest characters that together have this probability
  /min-p 0.05   choose among characters at least this many times as likely as the likeliest (0: all)
  /length 500   generate at most 500 characters (0: until Ctrl-C or /lines)
  /lines 3      stop after 3 complete lines (0: no limit)
  /max-chars 280  end each line, or the text without /lines, at a line or sentence end within 280 characters (0: no limit)
  /no-copy 30   write no passage of 30 characters that is in the training text (0: any)
  /seed 7       seed of the next text; it increases by 1 after each text
  /again        repeat the last prompt
A setting without a value prints its current value."""
NUMBERS = {
    "temp": "temperature", "top-k": "top_k", "top-p": "top_p", "min-p": "min_p", "length": "length", "lines": "lines",
    "max-chars": "max_chars", "no-copy": "no_copy",
}  # fmt: skip
"""Commands that change a setting, and the name of that setting."""
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def converse(
    run: str | None, folder: Path, cache: str, settings: SampleConfig, seed: int | None, *, quiet: bool = False
) -> int:
    """Answer lines of standard input until it ends; return the exit status. If `quiet`, do not name the seed and the run.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while waiting for input.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("-i needs input, but standard input is closed: run it in a terminal, or pipe in lines")
    model = api.load(run, folder, cache)
    if seed is None:
        seed = api.draw_seed()
        if not quiet:
            _tell(f"seed {seed}")
    check_seed(seed)
    conversation = Conversation(model, settings, seed, can_show(sys.stdout))
    if sys.stdin.isatty() and not quiet:
        _tell(f"{model.name}: type the start of a text; /help lists the commands, Ctrl-D exits")
    for line in _typed():
        conversation.answer(line)
    return 0


def _typed() -> Iterator[str]:
    """Yield the lines of standard input, with a prompt if it is a terminal."""
    asks = sys.stdin.isatty()
    edits = asks and sys.stdout.isatty()
    sys.stdin.reconfigure(errors="replace", **({} if asks else {"encoding": "utf-8"}))  # type: ignore[union-attr]
    if edits:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives input() line editing
    interrupted = False  # by the last key
    while True:
        try:
            line = _read_line(asks, edits)
        except (EOFError, KeyboardInterrupt) as ended:
            if asks:
                print(file=sys.stderr)
            if isinstance(ended, EOFError):
                return
            if interrupted or not asks:
                raise
            interrupted = True
            _tell("Ctrl-C again exits")
        else:
            interrupted = False
            yield line


def _read_line(asks: bool, edits: bool) -> str:
    """Read a line without its line end.

    Raises:
        EOFError: the input has ended.
        KeyboardInterrupt: Ctrl-C was pressed; the terminal has dropped what was typed.
    """
    if edits:
        return input("> ")  # on stdout, the same terminal, because readline draws there
    if asks:
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """Record Ctrl-C in a list instead of raising, because Python discards an exception raised in a finalizer."""
    noted: list[int] = []
    with signals.handlers_set({"SIGINT": lambda number, frame: noted.append(number)}):
        yield noted


def _tell(sentence: str) -> None:
    print(inline(sentence), file=sys.stderr, flush=True)


@dataclass
class Conversation:
    """An interactive session with a model: settings, seed and last prompt."""

    model: api.Model
    settings: SampleConfig
    seed: int  # of the next text
    out: TextIO
    start_text: str = ""

    def answer(self, line: str) -> None:
        """Run a command, or continue a prompt."""
        if line.startswith("/") and not line.startswith("//"):
            self._obey(*line[1:].split())
            return
        self.start_text = (line[1:] if line.startswith("//") else line).replace("\\n", "\n")
        self._write()

    def _obey(self, word: str = "help", *values: str) -> None:
        if word == "help":
            _tell(HELP)
        elif word == "again":
            self._write()
        elif word in NUMBERS or word == "seed":
            self._set(word, values)
        else:
            _tell(f"there is no command /{word}: type /help for a list, or // for a text that starts with a slash")

    def _set(self, word: str, values: tuple[str, ...]) -> None:
        now = self.seed if word == "seed" else getattr(self.settings, NUMBERS[word])
        try:
            if values:
                (text,) = values
                now = type(now)(text)
                if word == "seed":
                    check_seed(now)
                    self.seed = now
                else:
                    self.settings = SampleConfig(**vars(self.settings) | {NUMBERS[word]: now} | self._other(word, now))
            _tell(f"{word} {now:g}" if isinstance(now, float) else f"{word} {now}")
        except UsageError as error:
            _tell(hints.spell(str(error), "/"))
        except ValueError:
            kind = "a number" if isinstance(now, float) else "a whole number"
            _tell(f"/{word} takes {kind}, as in '/{word} {now}'")

    @staticmethod
    def _other(word: str, value: float) -> dict[str, int]:
        """Return the setting that can't be combined with the one that is set, switched off."""
        others = {"length": "max_chars", "max-chars": "length"}
        return {others[word]: 0} if value and word in others else {}

    def _write(self) -> None:
        """Continue the prompt; Ctrl-C stops only the current text."""
        if unknown_chars := self.model.unknown_chars(self.start_text):
            if not any(c in self.model.vocabulary for c in self.start_text):
                _tell(f"the model never saw {unknown_chars}, so it has nothing to continue: use other characters")
                return
            _tell(f"the model never saw {unknown_chars}: skipped")
        on_terminal = self.out.isatty()
        last = prompt = self.model.strip_unknown(self.start_text, "skip")
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
            _tell(hints.spell(str(error), "/"))
        except KeyboardInterrupt:  # raised before or after the handler is set
            last = ""
        self.seed += 1
        if not last.endswith("\n"):
            self.out.write("\n")
        self.out.flush()
