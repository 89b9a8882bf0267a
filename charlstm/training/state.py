"""The complete state of a run: everything that must survive a restart, and nothing else.

Anything that training depends on must be stored here, or `resume` loses it. Nothing here may come from a clock: the
same state must produce the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from charlstm import launcher
from charlstm.inference.sampling import CharModel
from charlstm.nn import growth, model, optim
from charlstm.nn.config import ModelConfig, embedding_for
from charlstm.nn.threads import MIN_STREAMS, shards_for
from charlstm.nn.types import Arrays
from charlstm.settings import TrainConfig
from charlstm.text.batches import Cursor, fit
from charlstm.text.corpus import Corpus
from charlstm.text.identity import TextInfo
from charlstm.text.ids import log_frequencies
from charlstm.text.lines import line_quantiles
from charlstm.text.vocabulary import Vocabulary
from charlstm.training.fingerprint import fingerprint
from charlstm.training.guard import GuardRecord
from charlstm.training.history import HistoryRow, MetricSums, PretrainedInfo
from charlstm.training.memory import check_memory, training_bytes
from charlstm.training.schedule import Schedule

FIRST_START_SHARE, MOST_START_SHARE = 0.1, 0.5
"""Share of pretrained weights in the average at first, and at most; the held-out text tunes it: see `loop`."""


@dataclass(frozen=True)
class Pretrained:
    """A model to start from."""

    info: PretrainedInfo
    model: CharModel


@dataclass
class TrainState:
    """The complete state of a run."""

    shape: ModelConfig
    config: TrainConfig
    vocabulary: Vocabulary
    text: TextInfo
    params: Arrays
    slots: Arrays
    snapshot: Arrays  # weights of the last good snapshot
    averaged: Arrays  # running average of the weights, which is evaluated, sampled from and saved as the best model
    recurrent_state: model.State
    cursor: Cursor
    batch_rng: np.random.Generator
    dropout_rng: np.random.Generator
    schedule: Schedule
    step: int = 0
    sums: MetricSums = field(default_factory=MetricSums)
    guard: GuardRecord = field(default_factory=GuardRecord)
    history: list[HistoryRow] = field(default_factory=list)
    best_step: int | None = None
    best_val_nats: float | None = None
    arithmetic: str = ""  # `fingerprint` of the machine that trains the run; empty in older files
    line_chars: tuple[int, ...] = ()  # quantiles of the lengths of the text's lines; empty in older files
    pretrained: PretrainedInfo | None = None  # the model whose weights it started from; None: random weights
    start: Arrays = field(default_factory=dict)  # these weights, if some of the text is held out; otherwise empty
    start_share: float = 0.0  # of `start` in `averaged`

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return model.parameter_count(self.shape)

    @property
    def chars_trained(self) -> int:
        """Characters trained on so far, counting repetitions."""
        return self.step * self.config.batch * self.config.seq


def begin(
    corpus: Corpus, config: TrainConfig, threads: int = 1, pretrained: Pretrained | None = None
) -> tuple[TrainState, list[str]]:
    """Create a run before its first step; return it with notes for the user on what was adjusted.

    Args:
        corpus: the text; its vocabulary must contain all characters of `pretrained`.
        config: settings; batch and window are reduced to fit a short text.
        threads: number of threads, which determines the number of shards.
        pretrained: a model of at most this size, whose weights are copied for the characters it knows; None for random weights.

    Raises:
        UsageError: training needs more memory than there is.
    """
    notes = []
    train_ids, val_ids = corpus.split(config.val_fraction)
    batch, seq = fit(len(train_ids), config.batch, config.seq)
    if (batch, seq) != (config.batch, config.seq):
        notes.append(
            f"the text is short: `batch` {config.batch} and `seq` {config.seq} were reduced to {batch} and {seq}"
        )
    if config.val_fraction > 0 and not len(val_ids):
        notes.append("the text is too short to hold any of it out, so there is no held-out loss")
    shape = _shape(config, len(corpus.vocabulary), pretrained.model.config if pretrained else None)
    config = replace(config, batch=batch, seq=seq, shards=shards_for(batch, threads))
    check_memory(shape, config, len(corpus.ids), corpus.mapped, val_chars=corpus.held_out_chars)
    init_seed, batch_seed, dropout_seed = np.random.SeedSequence(config.seed).spawn(3)
    out_b = log_frequencies(train_ids, len(corpus.vocabulary)) if pretrained is None else None
    params = model.init(shape, np.random.default_rng(init_seed), out_b=out_b)
    if pretrained is not None:
        known = corpus.vocabulary.encode(pretrained.model.vocabulary.characters)
        growth.load_pretrained(params, shape, pretrained.model.params, known)
    state = TrainState(
        shape=shape,
        config=config,
        vocabulary=corpus.vocabulary,
        text=corpus.info,
        params=params,
        slots=optim.empty_slots(config.optimizer, params, model.hidden_matrices(shape)),
        snapshot={name: p.copy() for name, p in params.items()},
        averaged={name: p.copy() for name, p in params.items()},
        recurrent_state=model.State.zero(shape, batch),
        cursor=Cursor(),
        batch_rng=np.random.default_rng(batch_seed),
        dropout_rng=np.random.default_rng(dropout_seed),
        schedule=Schedule(first=0, last=None, peak_lr=config.peak_lr),
        arithmetic=fingerprint(),
        line_chars=line_quantiles(train_ids, corpus.vocabulary),
        pretrained=None if pretrained is None else pretrained.info,
    )
    if pretrained is not None and len(val_ids):
        state.start, state.start_share = {name: p.copy() for name, p in params.items()}, FIRST_START_SHARE
    return state, notes


def _shape(config: TrainConfig, V: int, old: ModelConfig | None) -> ModelConfig:
    """Return the model's sizes; the kind of a model that it starts from is kept."""
    return ModelConfig(
        vocabulary=V,
        hidden=config.hidden,
        layers=config.layers,
        embedding=embedding_for(V) if old is None else old.embedding,
        dropout=config.dropout,
        residual=config.layers > 1 and (old is None or old.layers == 1 or old.residual),
        multiplicative=True,  # with M = 0 it is the same function
    )


def fit_to_ranks(run: TrainState) -> list[str]:
    """Give each rank of an MPI job a shard, as far as the batch has enough streams; return notes for the user.

    Fewer ranks than the run has shards compute several each, so that its bytes stay the same.
    """
    ranks, before, notes = launcher.ranks, run.config.shards, []
    if run.config.sync_every > 1 and launcher.hosts == 1:
        notes.append(f"`sync_every` {run.config.sync_every} has no effect: this run is on one host")
    if ranks == 1:
        return notes
    shards = max(before, shards_for(run.config.batch, ranks))
    if shards > before:
        run.config = replace(run.config, shards=shards)
        notes.append(
            f"the batch was split into {before} shards and is now split into {shards} for {ranks} ranks: "
            f"training continues, but not bit-identically"
        )
    if shards < ranks:
        notes.append(
            f"only {shards} of {ranks} ranks have work: a rank needs {MIN_STREAMS} streams of the `batch`, which is "
            f"{run.config.batch}"
        )
    return notes


def memory_bytes(run: TrainState, mapped: bool) -> int:
    """Estimate the memory in bytes that training takes; see `training_bytes`."""
    held_out = run.text.held_out
    return training_bytes(run.shape, run.config, run.text.chars, mapped, held_out.chars if held_out else 0)
