"""The Python API: load a model, sample, evaluate and train.

The command line uses nothing but this API, and `docs/api.md` is its guide. The names of settings are those of
`charlstm.settings`, and the errors are those of `charlstm.errors`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlstm import blas
from charlstm.errors import CorpusError, PromptError, UsageError
from charlstm.inference import evaluation, sampling
from charlstm.inference.novelty import TrainingText
from charlstm.nn.config import ModelConfig
from charlstm.settings import (
    Budget,
    IfExists,
    Optimizer,
    RunOptions,
    SampleConfig,
    TextOptions,
    TrainConfig,
    Unknown,
    require,
)
from charlstm.storage import checkpoint, runs
from charlstm.storage.checkpoint import Checkpoint
from charlstm.text import corpus, files
from charlstm.text.corpus import Corpus, TextInfo
from charlstm.text.sources import STDIN, find, find_again
from charlstm.text.vocabulary import describe_some
from charlstm.training.control import Stop
from charlstm.training.state import HistoryRow

if TYPE_CHECKING:
    from charlstm.events import Event

SAMPLE, RUN_OPTIONS = SampleConfig(), RunOptions()
RUNS = "checkpoints"


# -- a model ----------------------------------------------------------------------------------------------------------


def load(run: str | Path | None = None, checkpoints: str | Path = RUNS) -> Model:
    """Load a model from its file.

    Args:
        run: the name of a run or the path of an .npz file. None means the newest run, or the built-in model if there are
            no runs.
        checkpoints: the checkpoint folder.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
    """
    name = None if run is None else str(run)
    return Model(checkpoint.load(runs.find_run(name, Path(checkpoints), best=True)))


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model, with the metadata in its file."""

    file: Checkpoint

    def __repr__(self) -> str:
        return f"<charlstm model {self.name!r}: {self.config}>"

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.file.path.name.removesuffix(runs.BEST_SUFFIX).removesuffix(runs.SUFFIX)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def config(self) -> ModelConfig:
        """The shape of the model: vocabulary, hidden, layers, …"""
        return self.file.char_model.config

    @property
    def settings(self) -> TrainConfig:
        """The settings that it was trained with."""
        return self.file.config

    @property
    def vocabulary(self) -> str:
        """The characters of the training text, in code point order."""
        return self.file.char_model.vocabulary.characters

    @property
    def text(self) -> TextInfo:
        """The identity of the training text: sources, length, hash and encoding."""
        return self.file.text

    @property
    def history(self) -> list[HistoryRow]:
        """One row of metrics per evaluation."""
        return self.file.history

    # -- sampling

    def sample(
        self,
        *,
        temperature: float = SAMPLE.temperature,
        top_k: int = SAMPLE.top_k,
        top_p: float = SAMPLE.top_p,
        length: int = SAMPLE.length,
        prompt: str = SAMPLE.prompt,
        stop: str = SAMPLE.stop,
        lines: int = SAMPLE.lines,
        unknown: Unknown = SAMPLE.unknown,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Generate a text, yielding pieces of it as they are ready.

        Args:
            temperature: below 1 is safer, above 1 is wilder, 0 always picks the likeliest character.
            top_k: choose among the k likeliest characters; 0: all.
            top_p: choose among the likeliest characters that together have this probability.
            length: maximum number of characters; 0: no limit.
            prompt: text to continue; it is not yielded.
            stop: stop when this text appears, and leave it out.
            lines: stop after this many complete lines, excluding the prompt; 0: no limit.
            unknown: "error" raises a PromptError for prompt characters that the model never saw, "skip" drops them.
            seed: random seed; None draws one.

        Raises:
            UsageError: a setting is out of range.
            PromptError: the prompt has characters that the model never saw.
        """
        settings = SampleConfig(temperature, top_k, top_p, length, prompt, stop, lines, unknown)
        made = self.sample_many([draw_seed() if seed is None else seed], settings)
        return (piece for pieces in made for piece in pieces if piece)

    def sample_many(self, seeds: Sequence[int], settings: SampleConfig) -> Iterator[list[str]]:
        """Generate one text per seed in parallel, yielding a list with the next piece of each text.

        The piece of a text that has ended is empty. Each text is identical to that of `sample` with the same seed.
        """
        for seed in seeds:
            check_seed(seed)
        return sampling.generate(
            self.file.char_model, settings, [np.random.default_rng(seed) for seed in seeds], blas.cores()
        )

    def strip_unknown(self, prompt: str, unknown: Unknown = "error") -> str:
        """Return the prompt without the characters that the model never saw.

        Raises:
            PromptError: there are such characters, and `unknown` is "error".
        """
        return sampling.strip_unknown(self.file.char_model.vocabulary, prompt, unknown)

    def unknown_chars(self, text: str) -> str:
        """Describe the characters of a text that the model never saw; return an empty string if there are none."""
        return describe_some(self.file.char_model.vocabulary.unknown(text))

    # -- evaluation

    def evaluate(
        self, text: str | Corpus, *, prompt: str | None = None, context: int = 0, unknown: Unknown = "error"
    ) -> float:
        """Return the mean negative log-likelihood of a text in nats per character, at temperature 1.

        Args:
            text: a string, or a Corpus returned by `charlstm.api.read`.
            prompt: text that precedes `text`, as in `sample`. The model then predicts every character of `text` from all
                that precede it; "" starts it as `sample` does. With None, the first character is not predicted, and the
                model reads a long text as several streams in parallel.
            cold: reset the state every this many characters, as models with a fixed context do; 0: never.
            unknown: "error" raises a UsageError for characters that the model never saw, "skip" drops them.

        Raises:
            UsageError: the text is too short, or it has characters that the model never saw.
        """
        return self.score(text, prompt=prompt, context=context, unknown=unknown).mean_nats()

    def score(
        self, text: str | Corpus, *, prompt: str | None = None, context: int = 0, unknown: Unknown = "error"
    ) -> ScoredText:
        """Prepare a text for `evaluate`; iterate over the result for the negative log-likelihood of each character."""
        require("--context", context, 0, None)
        vocabulary = self.file.char_model.vocabulary
        if isinstance(text, str):
            unknown_chars = vocabulary.unknown(text)
            ids = vocabulary.encode("".join(c for c in text if c in vocabulary) if unknown_chars else text)
            left_out = len(text) - len(ids)
        else:
            ids, unknown_chars = vocabulary.translate(text.ids, text.vocabulary)
            left_out = len(text.ids) - len(ids)
        if unknown_chars and unknown == "error":
            raise UsageError(
                f"the model never saw {describe_some(unknown_chars)} of the text: add --unknown skip to drop such characters, "
                f"or learn them with 'charlstm train TEXT --init-from {self.name}'"
            )
        context_chars = 1
        if prompt is not None:
            start = vocabulary.encode(sampling.start_text(vocabulary, prompt, unknown))
            context_chars, ids = max(1, len(start)), np.concatenate([start, ids])
        if len(ids) <= context_chars:
            raise UsageError("the text is too short: give one with at least two characters that the model knows")
        return ScoredText(self, ids, context_chars, left_out, context, prompt is not None)

    def training_text(self) -> TrainingText:
        """Load the training text, to measure how much a sample copies from it.

        Raises:
            CorpusError: the text is missing, has changed, or came from standard input.
        """
        info = self.text
        if STDIN in info.sources:
            raise CorpusError(
                f"the text of {self.name!r} came from standard input and can't be compared: leave out --novelty"
            )
        try:
            text = corpus.read(find_again(info.sources), info.options)
        except CorpusError as error:
            raise CorpusError(f"the text of {self.name!r} can't be compared: {error}") from error
        if text.info.sha256 != info.sha256:
            raise CorpusError(
                f"the text of {self.name!r} has changed ({info.chars:,} characters then, {text.info.chars:,} now): "
                f"restore the old one, or leave out --novelty"
            )
        return TrainingText(text.split(self.settings.val_fraction)[0], text.vocabulary)


@dataclass(frozen=True, eq=False)
class ScoredText:
    """A text prepared for evaluation; iterating over it yields the negative log-likelihoods, one block at a time."""

    model: Model
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
        char_model, pairs = self.model.file.char_model, len(self.ids) - 1
        starts, length = evaluation.streams_of(pairs, pairs if self.in_one and not self.context else self.context)
        for places, nats in evaluation.char_nll(char_model.params, char_model.config, self.ids, starts, length):
            counted = places >= self.context_chars
            yield places[counted], nats[counted]

    def mean_nats(self) -> float:
        """Return the mean negative log-likelihood in nats per character."""
        return sum(float(nats.sum(dtype=np.float64)) for _, nats in self) / self.chars


def draw_seed() -> int:
    """Draw a random seed that is short enough to type."""
    return secrets.randbelow(2**31)


def check_seed(seed: int) -> None:
    """Validate a seed.

    Raises:
        UsageError: the seed is negative.
    """
    require("--seed", seed, 0, None)


# -- runs -------------------------------------------------------------------------------------------------------------


def describe(run: str | Path | None = None, checkpoints: str | Path = RUNS) -> dict[str, Any]:
    """Return the metadata of a run, as printed by `charlstm info --json`.

    Args:
        run: the name or file of a run. None means the newest run that can be used, with a list of all runs under `runs`.
        checkpoints: the checkpoint folder.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
    """
    from charlstm.storage import describe

    return describe.describe(None if run is None else str(run), Path(checkpoints))


# -- texts ------------------------------------------------------------------------------------------------------------


def read_text(corpora: str | Path | Sequence[str | Path], encoding: str = "utf-8") -> Corpus:
    """Find and read texts as `train` does.

    Raises:
        CorpusError: a text can't be found, read or decoded.
    """
    return corpus.read(find(_words(corpora)), TextOptions(encoding))


def read_prompt(source: str | Path) -> str:
    """Read a prompt from a UTF-8 file, or from standard input for ``-``.

    Line endings become LF, and a final line ending is dropped.

    Raises:
        PromptError: the file can't be read, or is not UTF-8.
    """
    name = "standard input" if source == STDIN else str(source)
    try:
        with files.open_source(str(source)) as file:
            data = file.read()
    except OSError as error:
        raise PromptError(f"the prompt {name} can't be read ({error.strerror or error}): give another file") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"{name}, line {line}, offset {error.start}: byte 0x{data[error.start]:02X} is not UTF-8: "
            f"save the prompt as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


def _words(corpora: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(name) for name in ([corpora] if isinstance(corpora, (str, os.PathLike)) else corpora)]


# -- training ---------------------------------------------------------------------------------------------------------


def train(
    corpora: str | Path | Sequence[str | Path] = (),
    *,
    name: str | None = None,
    checkpoints: str | Path = RUNS,
    if_exists: IfExists = "fail",
    init_from: str | Path | None = None,
    encoding: str = "utf-8",
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    hidden: int | None = None,
    layers: int | None = None,
    dropout: float | None = None,
    lr: float | None = None,
    batch: int | None = None,
    seq: int | None = None,
    val_fraction: float | None = None,
    optimizer: Optimizer | None = None,
    clip: float | None = None,
    eval_every: int | None = None,
    seed: int | None = None,
    save_every_s: float = RUN_OPTIONS.save_every_s,
    preview_every_s: float = RUN_OPTIONS.preview_every_s,
    preview_temperature: float = RUN_OPTIONS.preview_temperature,
    stream_preview: bool = RUN_OPTIONS.stream_preview,
    threads: int = 0,
    stop: Stop | None = None,
) -> Generator[Event, None, None]:
    """Train a model on texts; return an iterator of events, from Started to Finished.

    Training advances only while the caller iterates. Closing the iterator saves the run and releases its lock. Leaving a
    ``for`` loop closes it too, unless a variable still refers to it.

    Args:
        corpora: paths, directories, glob patterns, ``-``, or names of texts in corpora/; empty: the built-in text.
        name: name of the run; None: the name of the text.
        checkpoints: the checkpoint folder.
        if_exists: what to do if the run already exists: "fail", "resume" or "overwrite".
        init_from: a run whose weights to start from, instead of random ones.
        encoding: encoding of the texts.
        minutes, epochs, steps: how long to train; set at most one, see `Budget`.
        hidden, layers, dropout, lr, batch, seq, val_fraction, optimizer, clip, eval_every, seed: see `TrainConfig`. Some
            of those that are None are chosen to suit the text and the budget. A resumed run keeps its own settings, and
            the notes of Started list those ignored.
        save_every_s, preview_every_s, preview_temperature, stream_preview: see `RunOptions`.
        threads: number of threads; 0: one per core.
        stop: set its `reason`, from a signal handler or another thread, to stop after the current step.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: immediately, before training starts.
        SaveError, DivergenceError: during iteration.
    """
    from charlstm import session

    overrides = {
        "hidden": hidden, "layers": layers, "dropout": dropout, "lr": lr, "batch": batch, "seq": seq, "val_fraction": val_fraction,
        "optimizer": optimizer, "clip": clip, "eval_every": eval_every, "seed": seed,
    }  # fmt: skip
    overrides = {key: value for key, value in overrides.items() if value is not None}
    TrainConfig(**overrides)  # type: ignore[arg-type]  # rejects values out of range before any slow work
    started = session.start(
        _words(corpora),
        overrides,
        Budget(minutes, epochs, steps),
        Path(checkpoints),
        _run_options(save_every_s, preview_every_s, preview_temperature, stream_preview, threads),
        stop or Stop(),
        name=name,
        encoding=encoding,
        if_exists=if_exists,
        init_from=None if init_from is None else str(init_from),
    )
    return started.run()


def resume(
    run: str | Path | None = None,
    *,
    checkpoints: str | Path = RUNS,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    save_every_s: float = RUN_OPTIONS.save_every_s,
    preview_every_s: float = RUN_OPTIONS.preview_every_s,
    preview_temperature: float = RUN_OPTIONS.preview_temperature,
    stream_preview: bool = RUN_OPTIONS.stream_preview,
    threads: int = 0,
    stop: Stop | None = None,
) -> Generator[Event, None, None]:
    """Continue a run where it stopped, or extend it; return an iterator of events, as `train` does.

    Args:
        run: the name or file of a run; None: the newest run.
        checkpoints, minutes, epochs, steps, save_every_s, preview_every_s, preview_temperature, stream_preview, threads, stop:
            as for `train`.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: immediately, for example if its text has changed.
        SaveError, DivergenceError: during iteration.
    """
    from charlstm import session

    options = _run_options(save_every_s, preview_every_s, preview_temperature, stream_preview, threads)
    name = None if run is None else str(run)
    return session.resume(name, Budget(minutes, epochs, steps), Path(checkpoints), options, stop or Stop()).run()


def _run_options(
    save_every_s: float, preview_every_s: float, temperature: float, stream_preview: bool, threads: int
) -> RunOptions:
    require("--threads", threads, 0, 1024)
    return RunOptions(save_every_s, preview_every_s, temperature, stream_preview, threads or blas.cores())
