"""What `sample` and `eval` put on stdout."""

from __future__ import annotations

import io
import itertools
import math
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from charlstm import blas, checkpoint, corpus, evaluation, runs, sampling
from charlstm.display.jsonl import dump
from charlstm.display.words import bits, loss, visible
from charlstm.errors import UsageError
from charlstm.settings import SampleConfig
from charlstm.vocabulary import describe_some


def write_samples(
    run: str | None,
    folder: Path,
    settings: SampleConfig,
    count: int,
    seed: int | None,
    *,
    as_json: bool,
    output: Path | None = None,
) -> int:
    """Write `count` texts of a run to stdout, each character as soon as it is made; returns the exit status.

    With `output` they go to that file instead, which is replaced once they are complete.
    """
    if count < 1:
        raise UsageError(f"-n {count} is out of range: it must be at least 1")
    if settings.prompt == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("--prompt - was given but standard input is closed: pipe a text into it")
        settings = SampleConfig(**vars(settings) | {"prompt": sys.stdin.read().removesuffix("\n")})
    endless = settings.length == 0 and settings.lines == 0
    if endless and not settings.stop and (as_json or count > 1 or output is not None):
        raise UsageError(
            "a text without an end can't be told as JSON, be one of several or fill a file: give a --length"
        )
    writer = checkpoint.load(runs.find_run(run, folder, best=True)).writer
    if settings.lines > 0 and settings.length == 0 and "\n" not in writer.vocabulary:
        raise UsageError("--lines needs a model that knows line ends, and this one never saw any: give a --length")
    if seed is None:
        seed = secrets.randbelow(2**31)
        print(f"seed {seed}", file=sys.stderr)
    texts = _Texts(writer, settings, [seed + number for number in range(count)])

    def write(out: TextIO) -> None:
        if as_json:
            for number in range(count):
                _print_json(writer, settings, seed + number, "".join(texts.pieces(number)), out)
        else:
            _write_texts(texts, count, out)

    if output is None:
        write(sys.stdout)
        return 0

    def write_file(file: BinaryIO) -> None:
        out = io.TextIOWrapper(file, "utf-8", newline="")
        write(out)
        out.detach()

    checkpoint.write_atomically(output, write_file, "--output")
    return 0


class _Texts:
    """Several texts that are made as one batch and read one after the other."""

    def __init__(self, writer: sampling.Writer, settings: SampleConfig, seeds: list[int]) -> None:
        prompt = sampling.readable_prompt(writer.vocabulary, settings.prompt, settings.unknown)
        self.waiting = [[prompt] for _ in seeds]
        self.steps = sampling.generate(writer, settings, [np.random.default_rng(seed) for seed in seeds], blas.cores())

    def pieces(self, number: int) -> Iterator[str]:
        """One text, piece by piece, as soon as each is made; what is made of the others meanwhile is kept."""
        while True:
            yield from self.waiting[number]
            self.waiting[number].clear()
            made = next(self.steps, None)
            if made is None:
                return
            for waiting, piece in zip(self.waiting, made, strict=True):
                waiting.append(piece)


def _write_texts(texts: _Texts, count: int, out: TextIO) -> None:
    """Texts, one after the other; on a terminal control characters are made visible, and each text ends with a line end."""
    out.reconfigure(errors="replace")  # type: ignore[attr-defined]
    on_terminal = out.isatty()
    for number in range(count):
        last = ""
        for piece in texts.pieces(number):
            out.write(visible(piece) if on_terminal else piece)
            out.flush()
            last = piece or last
        if not last.endswith("\n") and (on_terminal or number < count - 1):
            out.write("\n")
    out.flush()


def _print_json(writer: sampling.Writer, settings: SampleConfig, seed: int, text: str, out: TextIO) -> None:
    ids = writer.vocabulary.encode(text)
    nats = evaluation.evaluate(writer.params, writer.config, ids) if len(ids) > 1 else None
    print(dump({"text": text, "seed": seed, "nats_per_char": nats, "settings": vars(settings)}), file=out, flush=True)


SHADES = (("green", 0.5), ("default", 1.5), ("yellow", 3.0), ("red", 5.0), ("bold red", math.inf))
"""Colours for surprise up to so many nats: from what was expected to what was not."""


def write_eval(
    run: str, folder: Path, corpora: Sequence[str], encoding: str, cold: int, *, show: bool, as_json: bool, skip: bool
) -> int:
    """Write how well a run predicts texts to stdout; returns the exit status."""
    from tqdm import tqdm

    writer = checkpoint.load(runs.find_run(run, folder, best=True)).writer
    text = corpus.read(corpus.find(corpora), encoding)
    ids, left_out = writer.vocabulary.translate(text.ids, text.vocabulary)
    if left_out and not skip:
        raise UsageError(
            f"the model never saw {describe_some(left_out)} of the text: --unknown skip leaves such characters out, "
            f"and 'charlstm train TEXT --init-from {run}' teaches them"
        )
    if len(ids) < 2:
        raise UsageError("there is nothing to predict: the text must have two characters at least that the model knows")
    pairs = len(ids) - 1
    surprise = np.zeros(len(ids) if show else 0, np.float32)
    total = 0.0
    with tqdm(total=pairs, unit="char", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:
        for places, nats in evaluation.surprises(
            writer.params, writer.config, ids, *evaluation.streams_of(pairs, cold)
        ):
            total += float(nats.sum(dtype=np.float64))
            if show:
                surprise[places] = nats
            bar.update(len(nats))
    if show:
        _write_shades(writer.vocabulary.characters, ids, surprise)
    mean, chance = total / pairs, float(np.log(len(writer.vocabulary)))
    facts = {
        "chars": pairs,
        "nats_per_char": mean,
        "bits_per_char": bits(mean),
        "chance_nats": chance,
        "cold": cold,
        "left_out": len(text.ids) - len(ids),
    }
    if as_json:
        print(dump(facts), flush=True)
    else:
        lost = f", {facts['left_out']:,} that it never saw left out" if facts["left_out"] else ""
        print(f"{loss(mean)} a character over {pairs:,} characters{lost}; by chance {loss(chance)}", flush=True)
    return 0


def _write_shades(characters: str, ids: NDArray[Any], surprise: NDArray[np.float32]) -> None:
    """A text in colours, line by line, runs of one colour at a time; without colours where they are not wanted."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    edges = np.array([edge for _, edge in SHADES[:-1]], np.float32)
    shades = np.searchsorted(edges, surprise)
    newline = characters.find("\n")
    ends = np.flatnonzero(ids == newline) if newline >= 0 else np.array([], np.intp)
    start = 0
    for end in [*(int(e) + 1 for e in ends), len(ids)]:
        line = Text()
        for shade, group in itertools.groupby(range(start, end), key=lambda k: int(shades[k])):
            line.append(visible("".join(characters[ids[k]] for k in group)), SHADES[shade][0])
        console.print(line, end="")
        start = end
    if len(ids) and ids[-1] != newline:
        console.print()
