"""The program from Python: load a model, sample, evaluate, train. The command line gets at all of that through here alone.

`docs/api.md` tells it to those who use it. Settings are called what they are called in `charlstm.settings`; errors are those of
`charlstm.errors`.
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

from charlstm import blas, checkpoint, corpus, evaluation, runs, sampling
from charlstm.checkpoint import Checkpoint, write_atomically
from charlstm.clock import Stop
from charlstm.corpus import Corpus, TextInfo
from charlstm.errors import CorpusError, PromptError, UsageError
from charlstm.nn.config import ModelConfig
from charlstm.novelty import PIECE, Copied, TrainingText
from charlstm.settings import Budget, Habits, IfExists, Optimizer, SampleConfig, TrainConfig, Unknown, require
from charlstm.state import Point
from charlstm.vocabulary import describe_some

if TYPE_CHECKING:
    from charlstm.events import Event

__all__ = [
    "PIECE", "Copied", "Model", "Reading", "Stop", "TrainingText", "check_seed", "describe", "draw_seed", "load", "read", "read_prompt", "resume", "train",
    "write_atomically",
]  # fmt: skip

SAMPLE, HABITS = SampleConfig(), Habits()
RUNS = "checkpoints"


# -- a model ----------------------------------------------------------------------------------------------------------


def load(run: str | Path | None = None, checkpoints: str | Path = RUNS) -> Model:
    """A model from its file.

    Args:
        run: a run's name or the path of an .npz file; None is the newest run, or the built-in model where there is none.
        checkpoints: the folder of runs.

    Raises:
        UsageError: there is no such run.
        CheckpointError: its file can't be used.
    """
    name = None if run is None else str(run)
    return Model(checkpoint.load(runs.find_run(name, Path(checkpoints), best=True)))


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A model that was trained, and all that its file tells about it."""

    file: Checkpoint

    def __repr__(self) -> str:
        return f"<charlstm model {self.name!r}: {self.config}>"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.file.path.name.removesuffix(runs.BEST_SUFFIX).removesuffix(runs.SUFFIX)

    @property
    def path(self) -> Path:
        """Its file."""
        return self.file.path

    @property
    def config(self) -> ModelConfig:
        """What it is: vocabulary, hidden, layers, …."""
        return self.file.writer.config

    @property
    def settings(self) -> TrainConfig:
        """What it was trained with."""
        return self.file.config

    @property
    def vocabulary(self) -> str:
        """The characters that it knows, in the order of their code points."""
        return self.file.writer.vocabulary.characters

    @property
    def text(self) -> TextInfo:
        """What identifies the text that it was trained on."""
        return self.file.text

    @property
    def history(self) -> list[Point]:
        """A row for each look at the held-out text."""
        return self.file.history

    # -- writing

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
        """Write a text, piece by piece, as it is made.

        Args:
            temperature: below 1 safer, above 1 wilder; 0 is always the likeliest.
            top_k: choose among the k likeliest; 0 among all.
            top_p: choose among the likeliest that make up this probability.
            length: new characters; 0 is without end.
            prompt: how the text begins; not among what is yielded.
            stop: end before this text.
            lines: end after so many line ends; 0 does not count them.
            unknown: what to do with a prompt's characters that the model never saw: error or skip.
            seed: of the random numbers; None draws one.

        Raises:
            UsageError: a setting out of range.
            PromptError: the prompt has characters that the model never saw.
        """
        settings = SampleConfig(temperature, top_k, top_p, length, prompt, stop, lines, unknown)
        made = self.sample_side_by_side([draw_seed() if seed is None else seed], settings)
        return (piece for pieces in made for piece in pieces if piece)

    def sample_side_by_side(self, seeds: Sequence[int], settings: SampleConfig) -> Iterator[list[str]]:
        """Write several texts at once, on all cores: for each step a piece of each, which is empty once it has ended.

        Each text is the one that `sample` writes with its seed.
        """
        for seed in seeds:
            check_seed(seed)
        return sampling.generate(
            self.file.writer, settings, [np.random.default_rng(seed) for seed in seeds], blas.cores()
        )

    def readable(self, prompt: str, unknown: Unknown = "error") -> str:
        """A prompt without the characters that the model never saw; these raise a PromptError unless `unknown` is skip."""
        return sampling.readable_prompt(self.file.writer.vocabulary, prompt, unknown)

    def strange(self, text: str) -> str:
        """In words, the characters of a text that the model never saw; empty if there are none."""
        return describe_some(self.file.writer.vocabulary.unknown(text))

    # -- judging

    def evaluate(
        self, text: str | Corpus, *, prompt: str | None = None, cold: int = 0, unknown: Unknown = "error"
    ) -> float:
        """How well the model predicts a text: mean nats a character, at temperature 1.

        Args:
            text: what to predict: a string, or what `read` has read.
            prompt: what stands before the text, as in `sample`, where "" is a beginning: every character of the text is then
                predicted, from all that stands before it. With None the first one is not, and a long text is read in several
                stretches side by side.
            cold: forget all after so many characters, as models with a window do; 0 never.
            unknown: what to do with characters that the model never saw: error or skip.

        Raises:
            UsageError: there is nothing to predict, or the model never saw some of the characters.
        """
        return self.read(text, prompt=prompt, cold=cold, unknown=unknown).mean_nats()

    def read(
        self, text: str | Corpus, *, prompt: str | None = None, cold: int = 0, unknown: Unknown = "error"
    ) -> Reading:
        """A text as `evaluate` reads it, for whoever wants the surprise of every character."""
        require("--cold", cold, 0, None)
        vocabulary = self.file.writer.vocabulary
        if isinstance(text, str):
            strange = vocabulary.unknown(text)
            ids = vocabulary.encode("".join(c for c in text if c in vocabulary) if strange else text)
            left_out = len(text) - len(ids)
        else:
            ids, strange = vocabulary.translate(text.ids, text.vocabulary)
            left_out = len(text.ids) - len(ids)
        if strange and unknown == "error":
            raise UsageError(
                f"the model never saw {describe_some(strange)} of the text: --unknown skip leaves such characters out, "
                f"and 'charlstm train TEXT --init-from {self.name}' teaches them"
            )
        before = 1
        if prompt is not None:
            start = vocabulary.encode(sampling.beginning(vocabulary, prompt, unknown))
            before, ids = max(1, len(start)), np.concatenate([start, ids])
        if len(ids) <= before:
            raise UsageError(
                "there is nothing to predict: the text must have two characters at least that the model knows"
            )
        return Reading(self, ids, before, left_out, cold, prompt is not None)

    def training_text(self) -> TrainingText:
        """The text that the model was trained on, to find out what a sample copied from it.

        Raises:
            CorpusError: it is gone, has changed, or came from standard input.
        """
        info = self.text
        if corpus.STDIN in info.sources:
            raise CorpusError(
                f"the text of {self.name!r} came from standard input, so that nothing can be compared with it"
            )
        try:
            text = corpus.read(corpus.find(info.sources), info.encoding)
        except CorpusError as error:
            raise CorpusError(f"the text of {self.name!r} is needed to compare with: {error}") from error
        if text.info.sha256 != info.sha256:
            raise CorpusError(
                f"the text of {self.name!r} has changed ({info.chars:,} characters then, {text.info.chars:,} now): "
                f"bring the old one back to compare with it"
            )
        return TrainingText(text.split(self.settings.val_fraction)[0], text.vocabulary)


@dataclass(frozen=True, eq=False)
class Reading:
    """A text on its way through a model; to iterate over it is to predict it, a block at a time."""

    model: Model
    ids: NDArray[Any]  # with what stands before it
    before: int  # how many of them are not predicted
    left_out: int  # characters of the text that the model never saw
    cold: int
    in_one: bool  # one stretch, however long

    @property
    def chars(self) -> int:
        """How many characters are predicted."""
        return len(self.ids) - self.before

    def __iter__(self) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Places in `ids`, and the surprise of the characters there in nats."""
        writer, pairs = self.model.file.writer, len(self.ids) - 1
        starts, length = evaluation.streams_of(pairs, pairs if self.in_one and not self.cold else self.cold)
        for places, nats in evaluation.surprises(writer.params, writer.config, self.ids, starts, length):
            counted = places >= self.before
            yield places[counted], nats[counted]

    def mean_nats(self) -> float:
        """Nats a character."""
        return sum(float(nats.sum(dtype=np.float64)) for _, nats in self) / self.chars


def draw_seed() -> int:
    """A seed that nobody chose, short enough to type."""
    return secrets.randbelow(2**31)


def check_seed(seed: int) -> None:
    """Refuse what can't be one.

    Raises:
        UsageError: it is negative.
    """
    require("--seed", seed, 0, None)


# -- runs -------------------------------------------------------------------------------------------------------------


def describe(run: str | Path | None = None, checkpoints: str | Path = RUNS) -> dict[str, Any]:
    """What is in a run's file, as `charlstm info --json` tells it.

    Args:
        run: a run's name or file; None is the newest that can be used, with a list of all under `runs`.
        checkpoints: the folder of runs.

    Raises:
        UsageError: there is no such run.
        CheckpointError: its file can't be used.
    """
    from charlstm import inventory  # `sample` starts sooner without it

    return inventory.describe(None if run is None else str(run), Path(checkpoints))


# -- texts ------------------------------------------------------------------------------------------------------------


def read(corpora: str | Path | Sequence[str | Path], encoding: str = "utf-8") -> Corpus:
    """Texts, found and read as `train` does it.

    Raises:
        CorpusError: a text can't be found, read or decoded.
    """
    return corpus.read(corpus.find(_words(corpora)), encoding)


def read_prompt(source: str | Path) -> str:
    """A prompt from a file, or with ``-`` from standard input: UTF-8, LF line ends, without the last one.

    Raises:
        PromptError: it can't be read, or is not UTF-8.
    """
    name = "standard input" if source == corpus.STDIN else str(source)
    try:
        with corpus.open_source(str(source)) as file:
            data = file.read()
    except OSError as error:
        raise PromptError(
            f"{name} can't be read: {error.strerror or error}; name another file to begin with"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"{name}, line {line}, offset {error.start}: byte 0x{data[error.start]:02X} is not UTF-8; "
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
    save_every_s: float = HABITS.save_every_s,
    preview_every_s: float = HABITS.preview_every_s,
    preview_temperature: float = HABITS.preview_temperature,
    stream_preview: bool = HABITS.stream_preview,
    threads: int = 0,
    stop: Stop | None = None,
) -> Generator[Event, None, None]:
    """Train on texts: an iterator of events, Started first and Finished last, which takes a step whenever it is asked for the next.

    Closing it (which leaving a ``for`` loop does, unless it has a name) saves the run and lets others write it.

    Args:
        corpora: words as on the command line: paths, directories, patterns, ``-``, names of texts in corpora/. None: the built-in text.
        name: of the run; that of the text if None.
        checkpoints: the folder of runs.
        if_exists: what to do if the run exists: fail, resume or overwrite.
        init_from: begin with the weights of this run instead of random ones.
        encoding: of the texts.
        minutes, epochs, steps: how long; at most one of them, see `Budget`.
        hidden, layers, dropout, lr, batch, seq, val_fraction, optimizer, clip, eval_every, seed: see `TrainConfig`; of those that are
            None, some are chosen to suit text and budget. A run that is resumed keeps its own, and Started notes what that leaves out.
        save_every_s, preview_every_s, preview_temperature, stream_preview: see `Habits`.
        threads: how many to use; 0 is one a core.
        stop: set its `reason`, from a signal handler or another thread, to end after the step in progress.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: at once, before anything is trained.
        SaveError, DivergenceError: while it is iterated over.
    """
    from charlstm import session  # `sample` starts sooner without it

    wishes = {
        "hidden": hidden, "layers": layers, "dropout": dropout, "lr": lr, "batch": batch, "seq": seq, "val_fraction": val_fraction,
        "optimizer": optimizer, "clip": clip, "eval_every": eval_every, "seed": seed,
    }  # fmt: skip
    wishes = {key: value for key, value in wishes.items() if value is not None}
    TrainConfig(**wishes)  # type: ignore[arg-type]  # refuses what is out of range, before anything takes time
    begun = session.start(
        _words(corpora),
        wishes,
        Budget(minutes, epochs, steps),
        Path(checkpoints),
        _habits(save_every_s, preview_every_s, preview_temperature, stream_preview, threads),
        stop or Stop(),
        name=name,
        encoding=encoding,
        if_exists=if_exists,
        init_from=None if init_from is None else str(init_from),
    )
    return begun.run()


def resume(
    run: str | Path | None = None,
    *,
    checkpoints: str | Path = RUNS,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    save_every_s: float = HABITS.save_every_s,
    preview_every_s: float = HABITS.preview_every_s,
    preview_temperature: float = HABITS.preview_temperature,
    stream_preview: bool = HABITS.stream_preview,
    threads: int = 0,
    stop: Stop | None = None,
) -> Generator[Event, None, None]:
    """Go on with a run exactly where it stopped, or longer than was planned: events as of `train`.

    Args:
        run: a run's name or file; None is the newest.
        checkpoints, minutes, epochs, steps, save_every_s, preview_every_s, preview_temperature, stream_preview, threads, stop:
            as for `train`.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: at once; there is no such run, or its text is gone or has changed.
        SaveError, DivergenceError: while it is iterated over.
    """
    from charlstm import session

    habits = _habits(save_every_s, preview_every_s, preview_temperature, stream_preview, threads)
    name = None if run is None else str(run)
    return session.resume(name, Budget(minutes, epochs, steps), Path(checkpoints), habits, stop or Stop()).run()


def _habits(
    save_every_s: float, preview_every_s: float, temperature: float, stream_preview: bool, threads: int
) -> Habits:
    require("--threads", threads, 0, 1024)
    return Habits(save_every_s, preview_every_s, temperature, stream_preview, threads or blas.cores())
