"""The Python API: load a model, sample, evaluate and train.

The command line uses nothing but this API, and `docs/api.md` is its guide. The names of settings are those of
`charlstm.settings`, and the errors are those of `charlstm.errors`. A function imports what it alone needs, so that
`sample` starts faster.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charlstm import blas
from charlstm.errors import UsageError
from charlstm.inference import sampling
from charlstm.nn.config import ModelConfig
from charlstm.settings import (
    AUTO,
    RUNS,
    IfExists,
    OnRead,
    ResumeRequest,
    SampleConfig,
    TextOptions,
    TrainConfig,
    TrainRequest,
    Unknown,
    check_seed,
    sort_settings,
)
from charlstm.storage import best, runs
from charlstm.storage.checkpoint import Checkpoint
from charlstm.text.sources import expand, find
from charlstm.text.vocabulary import describe_some
from charlstm.training.control import Stop

if TYPE_CHECKING:
    from charlstm.events import Event
    from charlstm.inference.novelty import Passages, TrainingText
    from charlstm.inference.scoring import ScoredText
    from charlstm.text.corpus import Corpus
    from charlstm.text.identity import TextInfo
    from charlstm.training.history import HistoryRow


def load(run: str | Path | None = None, checkpoints: str | Path = RUNS, cache: str | Path = AUTO) -> Model:
    """Load a model from its file.

    Args:
        run: the name of a run or the path of an .npz file; None: the newest run, or without runs the built-in model.
        checkpoints: the checkpoint folder.
        cache: the folder of its training text if that is long: see `charlstm.settings.RunOptions`.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
    """
    return Model(best.load_best(None if run is None else str(run), expand(checkpoints)), cache)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model, with the metadata in its file."""

    file: Checkpoint
    cache: str | Path = AUTO  # where its training text may be
    _passages: dict[int, Passages] = field(init=False, default_factory=dict)  # by length, as far as they were needed

    def __repr__(self) -> str:
        return f"<charlstm model {self.name!r}: {self.config}>"

    @property
    def name(self) -> str:
        """The name of the run."""
        return runs.RunFiles.of(self.file.path).name

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

    def sample(self, *, seed: int | None = None, **settings: Any) -> Iterator[str]:
        """Generate a text, yielding pieces of it as they are ready.

        Args:
            seed: random seed; None draws one.
            **settings: the fields of `charlstm.settings.SampleConfig`.

        Raises:
            UsageError: a setting is out of range.
            PromptError: the prompt has characters that the model never saw.
            CorpusError: `no_copy` needs the training text, and it is missing or has changed.
            CharlstmError: during iteration, if the model can't do it, such as end a line.
        """
        made = self.sample_many([draw_seed() if seed is None else seed], SampleConfig(**settings))
        return (piece for pieces in made for piece in pieces if piece)

    def sample_many(self, seeds: Sequence[int], settings: SampleConfig) -> Iterator[list[str]]:
        """Generate the text of each seed, as `sample` does, in parallel; yield the next piece of each, "" where it has ended."""
        for seed in seeds:
            check_seed(seed)
        rngs = [np.random.default_rng(seed) for seed in seeds]
        passages = self._copies(settings.no_copy) if settings.no_copy else None
        return sampling.generate(self.file.char_model, settings, rngs, blas.cores(), passages)

    def strip_unknown(self, prompt: str, unknown: Unknown = "error") -> str:
        """Return the prompt without the characters that the model never saw; raise a PromptError if `unknown` is "error"."""
        return sampling.strip_unknown(self.file.char_model.vocabulary, prompt, unknown)

    def unknown_chars(self, text: str) -> str:
        """Describe the characters of a text that the model never saw; return an empty string if there are none."""
        return describe_some(self.file.char_model.vocabulary.unknown(text))

    def evaluate(self, text: str | Corpus, **how: Any) -> float:
        """Return the mean negative log-likelihood of a text in nats per character, at temperature 1; `how` is as for `score`."""
        return self.score(text, **how).mean_nats()

    def score(
        self,
        text: str | Corpus,
        *,
        prompt: str | None = None,
        context: int = 0,
        unknown: Unknown = "error",
        limit: int = 0,
        adapt: bool = False,
    ) -> ScoredText:
        """Prepare a text for `evaluate`; iterate over the result for the negative log-likelihood of each character.

        Args:
            text: a string, or a Corpus returned by `charlstm.api.read_text`.
            prompt: text that precedes `text`, as in `sample`. The model then predicts every character of `text` from all
                that precede it; "" starts it as `sample` does. With None, the first character is not predicted, and the
                model reads a long text as several streams in parallel.
            context: reset the state every this many characters, as models with a fixed context do; 0: never.
            unknown: "error" raises a UsageError for characters that the model never saw, "skip" drops them.
            limit: the number of characters of the text to use; 0: all.
            adapt: learn from each part of the text after predicting it (dynamic evaluation); this model is not changed.
        """
        from charlstm.inference import scoring

        return scoring.score(self.file.char_model, text, prompt, context, unknown, self.name, limit, adapt)

    def export(self, path: str | Path, *, bits: int = 16, force: bool = False) -> None:
        """Write the model for other programs, as .html (a page that writes) or .safetensors (PyTorch).

        Raises:
            UsageError: the format is unknown, the file exists and `force` is not set, or a package is missing.
            SaveError: the file can't be written.
        """
        from charlstm.export import files

        files.write(self.file, self.name, Path(path), bits, force)

    def held_out_text(self) -> Corpus:
        """Load the text that was held out in training; raise CorpusError if there is none, or it is missing or has changed."""
        from charlstm.inference import scoring

        return scoring.read_held_out(self.text, self.settings.val_fraction, self.name, self.cache)

    def training_text(self, setting: str = "novelty") -> TrainingText:
        """Load the training text, to measure how much a sample copies; raise CorpusError if it is missing or has changed."""
        from charlstm.inference import novelty

        return novelty.read_training_text(self.text, self.settings.val_fraction, self.name, setting, self.cache)

    def _copies(self, chars: int) -> Passages:
        from charlstm.inference.novelty import Passages

        if chars not in self._passages:
            self._passages[chars] = Passages(self.training_text("no_copy"), chars)
        return self._passages[chars]


def draw_seed() -> int:
    """Draw a random seed that is short enough to type."""
    return secrets.randbelow(2**31)


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

    return describe.describe(None if run is None else str(run), expand(checkpoints))


def read_text(
    corpora: str | Path | Sequence[str | Path],
    *,
    cache: str | Path = AUTO,
    on_read: OnRead | None = None,
    **reading: Any,
) -> Corpus:
    """Find and read texts as `train` does; `reading` are the fields of `charlstm.settings.TextOptions`.

    The ids of a long text stay in a file in the folder `cache`; `numpy.asarray` makes an array of them, or of a slice.

    Raises:
        CorpusError: a text can't be found, read or decoded.
    """
    from charlstm.text import cache as cache_files
    from charlstm.text import corpus

    return corpus.read(find(_words(corpora)), TextOptions(**reading), cache_files.folder_of(cache), on_read)


def _words(corpora: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(name) for name in ([corpora] if isinstance(corpora, (str, os.PathLike)) else corpora)]


def train(
    corpora: str | Path | Sequence[str | Path] = (),
    *,
    name: str | None = None,
    checkpoints: str | Path = RUNS,
    if_exists: IfExists = "fail",
    init_from: str | Path = AUTO,
    val_file: str | Path | None = None,
    unknown: Unknown = "error",
    stop: Stop | None = None,
    **settings: Any,
) -> Generator[Event, None, None]:
    """Train on texts; return an iterator of events, from Started to Finished, that takes a step when asked for more.

    Closing the iterator (leaving a ``for`` loop does this, unless a variable holds the iterator) saves the run and
    releases its lock.

    Args:
        corpora: texts in the form that the command line accepts: paths, directories, glob patterns, ``-``, or names of texts
            in corpora/. Empty: the built-in text.
        name: name of the run; None: the name of the text.
        checkpoints: the checkpoint folder.
        if_exists: what to do if the run already exists: "fail", "resume", "overwrite", or "update": resume it, or start over
            from its weights if the text has changed.
        init_from: a run whose weights to start from; "auto": the bundled base if it suits the text; "none": random weights.
        val_file: a file to hold out; the texts are then trained on whole. None: the end of the text is held out.
        unknown: what to do with characters of `val_file` that the texts do not have: "error", or "skip" them.
        stop: set its `reason`, from a signal handler or another thread, to stop after the current step.
        **settings: the fields of `charlstm.settings.Budget` (at most one of minutes, epochs, steps), `RunOptions`,
            `TextOptions` and `TrainConfig`; None is as good as not given. Some of those of `TrainConfig` that are not given are
            chosen to suit the text and the budget. A resumed run keeps its own, and the notes of Started list those ignored.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: immediately, before training starts.
        SaveError, DivergenceError: during iteration.
    """
    budget, options, reading, overrides = sort_settings(settings)
    request = TrainRequest(
        tuple(_words(corpora)), overrides, budget, options, expand(checkpoints), name, reading, if_exists, str(init_from),
        str(val_file or ""), unknown,
    )  # fmt: skip
    return begin(request, stop)


def resume(
    run: str | Path | None = None,
    *,
    checkpoints: str | Path = RUNS,
    text: str | Path | Sequence[str | Path] = (),
    val_file: str | Path | None = None,
    stop: Stop | None = None,
    **settings: Any,
) -> Generator[Event, None, None]:
    """Continue a run where it stopped, or extend it; return an iterator of events, as `train` does.

    Args:
        run: the name or file of a run; None: the newest run.
        text: where its text is now, if it has moved.
        val_file: where its held-out text is now, if that has a file of its own and has moved.
        checkpoints, stop, **settings: as for `train`; the settings are the fields of `Budget` and `RunOptions`.

    Raises:
        UsageError, CorpusError, CheckpointError, LockedError: immediately, for example if its text has changed.
        SaveError, DivergenceError: during iteration.
    """
    budget, options, reading, overrides = sort_settings(settings)
    if names := [f"`{name}`" for name in settings if name in overrides or hasattr(reading, name)]:
        raise UsageError(f"a run keeps its settings: {', '.join(names)} can't be changed")
    name = None if run is None else str(run)
    request = ResumeRequest(name, budget, options, expand(checkpoints), tuple(_words(text)), str(val_file or ""))
    return begin(request, stop)


def begin(request: TrainRequest | ResumeRequest, stop: Stop | None = None) -> Generator[Event, None, None]:
    """Do what a request asks for; return an iterator of events and raise errors, as `train` does."""
    from charlstm import launch

    stop = stop or Stop()
    session = launch.start(request, stop) if isinstance(request, TrainRequest) else launch.resume(request, stop)
    return session.run()
