"""The complete state of a run: everything that must survive a restart, and nothing else.

Anything that training depends on must be stored here, or `resume` loses it. Nothing here may come from a clock: the
same state must produce the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from charlstm import arithmetic, evaluation
from charlstm.batches import Cursor, fit
from charlstm.corpus import Corpus, TextInfo
from charlstm.guard import GuardRecord
from charlstm.nn import model, optim, parallel
from charlstm.nn.config import ModelConfig, embedding_for
from charlstm.nn.types import Arrays
from charlstm.sampling import Writer
from charlstm.settings import EVALUATIONS, TrainConfig
from charlstm.vocabulary import Vocabulary

WARMUP_STEPS = 50
FINAL_LR = 0.02
"""Final learning rate of the schedule, as a fraction of its peak."""
EVALUATION_SHARE = 0.05
"""Approximate maximum fraction of the training time that evaluations take."""


@dataclass
class Plan:
    """A learning-rate schedule and its length in steps; extending a run starts a new one."""

    first: int  # step at which it starts
    last: int | None  # step at which it ends; None until a time budget is converted to steps
    peak_lr: float
    eval_every: int = 0  # steps; 0 until `last` is known
    minutes: float | None = None  # the time budget that it was made for

    def lr(self, step: int) -> float:
        """Return the learning rate after `step` steps: linear warm-up, then cosine decay (Loshchilov & Hutter 2017).

        The decay ends at `FINAL_LR` times the peak.
        """
        done = step - self.first
        total = math.inf if self.last is None else self.last - self.first
        warmup = min(WARMUP_STEPS, total / 10)
        if done < warmup:
            return self.peak_lr * (done + 1) / (warmup + 1)
        progress = min(1.0, (done - warmup) / max(1, total - warmup))
        return self.peak_lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress)))

    def end(self, last: int, eval_every: int, chars_per_step: int, val_chars: int) -> None:
        """Set the last step and, if `eval_every` is 0, an evaluation interval that respects `EVALUATION_SHARE`.

        A forward pass is assumed to take a third of the time of a training step.
        """
        self.last = last
        steps = max(1, last - self.first)
        affordable = 3 * EVALUATION_SHARE * steps * chars_per_step / max(1, val_chars)
        evaluations = min(EVALUATIONS, max(2, int(affordable)))
        self.eval_every = eval_every or max(1, math.ceil(steps / evaluations))


@dataclass(frozen=True)
class Point:
    """One row of a run's history, added at each evaluation; losses are in nats per character."""

    step: int
    loss_nats: float  # mean training loss since the previous row
    val_nats: float | None
    lr: float
    grad_norm: float  # mean since the previous row, before clipping
    update_ratio: float  # mean since the previous row
    weight_norm: float
    cell_max: float  # largest |c| since the previous row
    saturated: float  # mean since the previous row


@dataclass
class Tally:
    """Running sums since the last row of the history."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    update_ratio: float = 0.0
    saturated: float = 0.0
    cell_max: float = 0.0


@dataclass
class TrainState:
    """The complete state of a run."""

    shape: ModelConfig
    config: TrainConfig
    vocabulary: Vocabulary
    text: TextInfo
    params: Arrays
    slots: Arrays
    good: Arrays  # weights of the last good snapshot
    carried: model.State
    cursor: Cursor
    batch_rng: np.random.Generator
    dropout_rng: np.random.Generator
    plan: Plan
    step: int = 0
    tally: Tally = field(default_factory=Tally)
    guard: GuardRecord = field(default_factory=GuardRecord)
    history: list[Point] = field(default_factory=list)
    best_step: int | None = None
    best_val_nats: float | None = None
    arithmetic: str = ""  # `arithmetic.fingerprint` of the machine that trains the run; empty in older files

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return model.parameter_count(self.shape)

    @property
    def memory_bytes(self) -> int:
        """Estimated memory for training in bytes, excluding the interpreter and the text.

        It counts weights, optimizer slots, gradients and buffers, all float32. Weights are stored twice (current and
        last good). Each shard has two copies of its gradients, and about two of its weights in the layout that the
        loops need. An evaluation has its own buffers.
        """
        weights = self.parameters * (2 + (6 if self.shape.dropout else 4) * self.config.parts)
        weights += sum(slot.size for slot in self.slots.values())
        window = model.Workspace.numbers(self.shape, self.config.seq, self.config.batch)
        evaluated = model.Workspace.numbers(self.shape, evaluation.window_steps(self.shape), evaluation.STREAMS)
        return 4 * (weights + window + evaluated)

    @property
    def chars_trained(self) -> int:
        """Characters trained on so far, counting repetitions."""
        return self.step * self.config.batch * self.config.seq


def begin(
    corpus: Corpus, config: TrainConfig, threads: int = 1, origin: Writer | None = None
) -> tuple[TrainState, list[str]]:
    """Create a run before its first step; return it with notes for the user on what was adjusted.

    Args:
        corpus: the text; its vocabulary must contain all characters of `origin`.
        config: settings; batch and window are reduced to fit a short text.
        threads: number of threads, which determines the number of shards.
        origin: a model whose weights are copied for the characters it knows; None for random weights.
    """
    notes = []
    train_ids, val_ids = corpus.split(config.val_fraction)
    batch, seq = fit(len(train_ids), config.batch, config.seq)
    if (batch, seq) != (config.batch, config.seq):
        notes.append(
            f"the text is short: --batch {config.batch} and --seq {config.seq} were reduced to {batch} and {seq}"
        )
    if config.val_fraction > 0 and not len(val_ids):
        notes.append("the text is too short to hold any of it out, so there is no held-out loss")
    shape = ModelConfig(
        vocabulary=len(corpus.vocabulary),
        hidden=config.hidden,
        layers=config.layers,
        embedding=embedding_for(len(corpus.vocabulary)) if origin is None else origin.config.embedding,
        dropout=config.dropout,
    )
    config = replace(config, batch=batch, seq=seq, parts=parallel.parts_for(batch, threads))
    init_seed, batch_seed, dropout_seed = np.random.SeedSequence(config.seed).spawn(3)
    params = model.init(shape, np.random.default_rng(init_seed))
    if origin is not None:
        model.graft(params, origin.params, corpus.vocabulary.encode(origin.vocabulary.characters))
    state = TrainState(
        shape=shape,
        config=config,
        vocabulary=corpus.vocabulary,
        text=corpus.info,
        params=params,
        slots=optim.empty_slots(config.optimizer, params, model.hidden_matrices(shape)),
        good={name: p.copy() for name, p in params.items()},
        carried=model.State.zero(shape, batch),
        cursor=Cursor(),
        batch_rng=np.random.default_rng(batch_seed),
        dropout_rng=np.random.default_rng(dropout_seed),
        plan=Plan(first=0, last=None, peak_lr=config.peak_lr),
        arithmetic=arithmetic.fingerprint(),
    )
    return state, notes
