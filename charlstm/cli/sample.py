"""The output of `sample` and `eval`."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from charlstm import api
from charlstm.display.formatting import inline, visible
from charlstm.display.jsonl import dump
from charlstm.errors import UsageError
from charlstm.inference import novelty
from charlstm.settings import SampleConfig
from charlstm.storage import atomic
from charlstm.text.prompt import read_prompt


def write_samples(
    run: str | None,
    folder: Path,
    settings: SampleConfig,
    count: int,
    seed: int | None,
    *,
    prompt_file: Path | None = None,
    novelty: bool = False,
    as_json: bool = False,
    output: Path | None = None,
    quiet: bool = False,
) -> int:
    """Write `count` texts of a run to stdout, each character as soon as it is generated; return the exit status.

    With `output`, they go to that file instead, which is replaced only once they are complete.
    """
    if count < 1:
        raise UsageError(f"-n {count} is out of range: it must be at least 1")
    endless = settings.length == 0 and settings.lines == 0
    if endless and not settings.stop and (as_json or count > 1 or output is not None or novelty):
        raise UsageError("--json, -n, --novelty and --output need a finite sample: set --length")
    settings = _with_prompt(settings, prompt_file)
    model = api.load(run, folder)
    training_text = model.training_text() if novelty else None
    seed = api.draw_seed() if seed is None else seed
    texts = _Texts(model, settings, range(seed, seed + count), keep=novelty)
    if not quiet:
        print(f"from {inline(model.name)}, step {model.file.step:,}, seed {seed}", file=sys.stderr)

    def write(out: TextIO) -> None:
        if as_json:
            _write_json(model, settings, texts, training_text, out)
        else:
            _write_texts(texts, out)

    if output is None:
        write(sys.stdout)
    else:
        _into_file(output, write)
    if training_text is not None and not as_json:
        _tell_novelty(texts, training_text)
    return 0


def _with_prompt(settings: SampleConfig, prompt_file: Path | None) -> SampleConfig:
    """Return the settings with the prompt read from its file or from standard input, if it comes from there."""
    if prompt_file is not None and settings.prompt:
        raise UsageError("--prompt and --prompt-file can't be combined: give only one of them")
    source = settings.prompt if prompt_file is None else str(prompt_file)
    return replace(settings, prompt=read_prompt(source)) if prompt_file is not None or source == "-" else settings


def _into_file(path: Path, write: Callable[[TextIO], None]) -> None:
    def write_file(file: BinaryIO) -> None:
        out = io.TextIOWrapper(file, "utf-8", newline="")
        write(out)
        out.detach()

    atomic.write_atomically(path, write_file, "output")


class _Texts:
    """Several texts that are generated as one batch and read one after another."""

    def __init__(self, model: api.Model, settings: SampleConfig, seeds: Sequence[int], *, keep: bool) -> None:
        self.prompt = model.strip_unknown(settings.prompt, settings.unknown)
        self.seeds = seeds
        self.steps = model.sample_many(seeds, settings)
        self.waiting: list[list[str]] = [[] for _ in seeds]
        self.keep = keep  # whether to keep what was read; an endless text would fill the memory
        self.written: list[list[str]] = [[] for _ in seeds]

    def pieces(self, number: int) -> Iterator[str]:
        """Yield one text without its prompt, in pieces as they are generated; pieces of the other texts are queued."""
        while True:
            yield from self.waiting[number]
            if self.keep:
                self.written[number] += self.waiting[number]
            self.waiting[number].clear()
            made = next(self.steps, None)
            if made is None:
                return
            for waiting, piece in zip(self.waiting, made, strict=True):
                waiting.append(piece)


def can_show(out: TextIO) -> TextIO:
    """Make a stream replace characters that its encoding lacks, and return it."""
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")
    return out


def _write_texts(texts: _Texts, out: TextIO) -> None:
    """Write texts one after another; on a terminal, show control characters and end each text with a newline."""
    can_show(out)
    on_terminal = out.isatty()
    for number in range(len(texts.seeds)):
        last = ""
        for piece in itertools.chain([texts.prompt], texts.pieces(number)):
            out.write(visible(piece) if on_terminal else piece)
            out.flush()
            last = piece or last
        if not last.endswith("\n") and (on_terminal or number < len(texts.seeds) - 1):
            out.write("\n")
    out.flush()


def _write_json(
    model: api.Model, settings: SampleConfig, texts: _Texts, training_text: novelty.TrainingText | None, out: TextIO
) -> None:
    written = ["".join(texts.pieces(number)) for number in range(len(texts.seeds))]
    copied = training_text.compare(written) if training_text is not None else None
    for number, (seed, text) in enumerate(zip(texts.seeds, written, strict=True)):
        try:
            nats = model.evaluate(text, prompt=texts.prompt)
        except UsageError:  # the sample is too short to evaluate
            nats = None
        facts = {
            "text": texts.prompt + text,
            "run": model.name,
            "step": model.file.step,
            "seed": seed,
            "nats_per_char": nats,
            "settings": vars(settings),
        }
        if copied is not None:
            facts["novelty"] = _novelty_facts(copied[number])
        print(dump(facts), file=out, flush=True)


def _novelty_facts(copied: novelty.Copied) -> dict[str, Any]:
    return {
        "piece_chars": novelty.PIECE,
        "pieces": copied.pieces,
        "copied_pieces": copied.copied,
        "copied_share": copied.share,
        "longest_copied_chars": copied.longest_chars,
    }


def _tell_novelty(texts: _Texts, training_text: novelty.TrainingText) -> None:
    """Print to stderr how much of each text is copied."""
    written = ["".join(pieces) for pieces in texts.written]
    for seed, copied in zip(texts.seeds, training_text.compare(written), strict=True):
        which = f" of seed {seed}" if len(written) > 1 else ""
        print(f"novelty{which}: {_novelty_words(copied)}", file=sys.stderr)


def _novelty_words(copied: novelty.Copied) -> str:
    if copied.share is None:
        return f"unknown, because the sample is shorter than {novelty.PIECE} characters"
    if copied.copied == 0:
        return f"none of its {novelty.PIECE}-character substrings occurs in the training text"
    return (
        f"{copied.share:.1%} of its {novelty.PIECE}-character substrings occur in the training text; "
        f"the longest copied passage has {copied.longest_chars:,} characters"
    ).replace("%", " %", 1)
