"""The output of `sample` and `eval`. A function imports what few samples need, so that the others start faster."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from charlstm import api
from charlstm.display.formatting import inline, visible
from charlstm.errors import UsageError
from charlstm.settings import AUTO, SampleConfig
from charlstm.storage.runs import skipped
from charlstm.text.lines import circle_chars

if TYPE_CHECKING:
    from charlstm.inference.novelty import Copied, TrainingText

BATCH, BATCH_CHARS = 256, 2_000_000
"""Maximum number of texts generated together, and of their characters: those not written yet are in memory."""


def write_samples(
    run: str | None,
    folder: Path,
    settings: SampleConfig,
    count: int,
    seed: int | None,
    *,
    temps: Sequence[float] = (),
    prompt_file: Path | None = None,
    separator: str | None = None,
    novelty: bool = False,
    cache: str = AUTO,
    as_json: bool = False,
    output: Path | None = None,
    quiet: bool = False,
) -> int:
    """Write `count` texts of a run to stdout, each character as soon as it is generated; return the exit status.

    With `temps`, write that many texts at each of these temperatures. With `output`, the texts go to that file instead,
    which is replaced only once they are complete.
    """
    if count < 1:
        raise UsageError(f"-n {count} is out of range: it must be at least 1")
    endless = settings.length == settings.lines == settings.max_chars == 0 and not settings.stop
    if endless and (as_json or count > 1 or temps or output is not None or novelty):
        raise UsageError("--json, -n, --temps, --novelty and --output need a finite sample: set --length")
    settings = _with_prompt(settings, prompt_file)
    model = api.load(run, folder, cache)
    if run is None and (note := skipped(folder)):
        print(inline(note), file=sys.stderr)
    training_text = model.training_text() if novelty else None
    seed = api.draw_seed() if seed is None else seed
    requests = [replace(settings, temperature=temp) for temp in temps or [settings.temperature]]
    batches = [
        _Batch(model, request, seeds, training_text, labelled=bool(temps))
        for request in requests
        for seeds in _split(range(seed, seed + count), settings)
    ]
    batches[0].start()  # before anything is printed, so that what can't be sampled is one sentence
    if not quiet:
        print(f"from {inline(model.name)}, step {model.file.step:,}, seed {seed}", file=sys.stderr)

    def write(out: TextIO) -> None:
        if as_json:
            for batch in batches:
                _write_json(model, batch, out)
        else:
            _write_texts(batches, separator, out)

    if output is None:
        write(sys.stdout)
    else:
        _into_file(output, write)
    if not as_json:
        for batch in batches:
            batch.report()
    return 0


def _split(seeds: range, settings: SampleConfig) -> Iterator[range]:
    """Split the seeds into batches; which batch a text is in makes no difference to it."""
    size = max(1, min(BATCH, BATCH_CHARS // (settings.max_chars or settings.length or 1000)))
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def _with_prompt(settings: SampleConfig, prompt_file: Path | None) -> SampleConfig:
    """Return the settings with the prompt read from its file or from standard input, if it comes from there."""
    if prompt_file is not None and settings.prompt:
        raise UsageError("--prompt and --prompt-file can't be combined: give only one of them")
    source = settings.prompt if prompt_file is None else str(prompt_file)
    if prompt_file is None and source != "-":
        return settings
    from charlstm.text.prompt import read_prompt

    return replace(settings, prompt=read_prompt(source))


def _into_file(path: Path, write: Callable[[TextIO], None]) -> None:
    from charlstm.storage import atomic

    def write_file(file: BinaryIO) -> None:
        out = io.TextIOWrapper(file, "utf-8", newline="")
        write(out)
        out.detach()

    atomic.write_atomically(path, write_file, "`output`")


class _Batch:
    """Several texts that are generated together and read one after another."""

    def __init__(
        self,
        model: api.Model,
        settings: SampleConfig,
        seeds: Sequence[int],
        training_text: TrainingText | None,
        *,
        labelled: bool,
    ) -> None:
        self.model, self.settings, self.seeds = model, settings, seeds
        self.prompt = model.strip_unknown(settings.prompt, settings.unknown)
        self.training_text, self.labelled = training_text, labelled
        self.copied: list[Copied] = []  # of each text, once all are read, if there is a training text
        self.steps: Iterator[list[str]] | None = None
        self.circle = 0  # characters that a text at temperature 0 repeats at its end

    def start(self) -> Iterator[list[str]]:
        """Begin to generate the texts."""
        self.steps = self.steps or self.model.sample_many(self.seeds, self.settings)
        return self.steps

    def texts(self) -> Iterator[Iterator[str]]:
        """Yield each text without its prompt, in pieces as they are generated; pieces of the others are queued."""
        steps = self.start()
        waiting: list[list[str]] = [[] for _ in self.seeds]
        keep = self.training_text is not None or self.settings.temperature == 0  # an endless text would fill the memory
        written: list[str] = []

        def pieces(number: int) -> Iterator[str]:
            kept: list[str] = []
            while True:
                yield from waiting[number]
                if keep:
                    kept += waiting[number]
                waiting[number].clear()
                made = next(steps, None)
                if made is None:
                    break
                for queue, piece in zip(waiting, made, strict=True):
                    if piece:
                        queue.append(piece)
            written.append("".join(kept))

        for number in range(len(self.seeds)):
            yield pieces(number)
        if self.training_text is not None:
            self.copied = self.training_text.compare(written)
        if self.settings.temperature == 0:
            self.circle = max(map(circle_chars, written))

    def report(self) -> None:
        """Print to stderr how much of each text is copied, and whether temperature 0 went round in a circle."""
        at = f" at --temp {self.settings.temperature:g}" if self.labelled else ""
        for seed, copied in zip(self.seeds, self.copied, strict=False):
            which = f" of seed {seed}" if len(self.seeds) > 1 else ""
            print(f"novelty{which}{at}: {_novelty_words(copied)}", file=sys.stderr)
        if self.circle:
            print(
                f"note: at --temp 0 the model goes round in a circle of {self.circle:,} characters: try --temp 0.5",
                file=sys.stderr,
            )


def can_show(out: TextIO) -> TextIO:
    """Make a stream replace characters that its encoding lacks, and return it."""
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")
    return out


def _write_texts(batches: Sequence[_Batch], separator: str | None, out: TextIO) -> None:
    """Write texts one after another; on a terminal, show control characters and end each text with a newline.

    The separator is a line of its own. By default it is an empty line, or none between texts of one line.
    """
    can_show(out)
    on_terminal = out.isatty()
    settings = batches[0].settings
    if separator is None and (settings.lines != 1 or "\n" in settings.prompt):
        separator = ""
    last = None  # piece of the text before
    for batch in batches:
        for number, text in enumerate(batch.texts()):
            if last is not None:
                out.write(("" if last.endswith("\n") else "\n") + ("" if separator is None else f"{separator}\n"))
            if batch.labelled and number == 0:
                out.flush()
                print(f"--temp {batch.settings.temperature:g}:", file=sys.stderr)
            last = ""
            for piece in itertools.chain([batch.prompt], text):
                out.write(visible(piece) if on_terminal else piece)
                out.flush()
                last = piece or last
    if on_terminal and last is not None and not last.endswith("\n"):
        out.write("\n")
    out.flush()


def _write_json(model: api.Model, batch: _Batch, out: TextIO) -> None:
    from charlstm.display.jsonl import dump

    written = ["".join(text) for text in batch.texts()]
    for number, (seed, text) in enumerate(zip(batch.seeds, written, strict=True)):
        try:
            nats = model.evaluate(text, prompt=batch.prompt)
        except UsageError:  # the sample is too short to evaluate
            nats = None
        facts = {
            "text": batch.prompt + text,
            "run": model.name,
            "step": model.file.step,
            "seed": seed,
            "nats_per_char": nats,
            "settings": vars(batch.settings),
        }
        if batch.copied:
            facts["novelty"] = _novelty_facts(batch.copied[number])
        print(dump(facts), file=out, flush=True)


def _novelty_facts(copied: Copied) -> dict[str, Any]:
    from charlstm.inference.novelty import PIECE

    return {
        "piece_chars": PIECE,
        "pieces": copied.pieces,
        "copied_pieces": copied.copied,
        "copied_share": copied.share,
        "longest_copied_chars": copied.longest_chars,
    }


def _novelty_words(copied: Copied) -> str:
    from charlstm.inference.novelty import PIECE

    if copied.share is None:
        return f"unknown, because the sample is shorter than {PIECE} characters"
    if copied.copied == 0:
        return f"none of its {PIECE}-character substrings occurs in the training text"
    return (
        f"{copied.share:.1%} of its {PIECE}-character substrings occur in the training text; "
        f"the longest copied passage has {copied.longest_chars:,} characters"
    ).replace("%", " %", 1)
