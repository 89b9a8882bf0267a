"""A run at rest: everything that must survive a restart, and nothing that need not.

Whatever is added to training and is not in here is lost by `resume`; whatever is read from a clock does not belong here, because the same
state must give the same bytes.
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
"""The schedule ends at this share of its peak."""
EVALUATION_SHARE = 0.05
"""Evaluations take about this share of the time at most."""


@dataclass
class Plan:
    """A stretch of training with a learning rate schedule of its own; a run that is prolonged gets another one."""

    first: int  # the step it begins at
    last: int | None  # the step it ends at; None until a time budget has been turned into steps
    peak_lr: float
    eval_every: int = 0  # 0 until `last` is known
    minutes: float | None = None  # the budget it was made for

    def lr(self, step: int) -> float:
        """The learning rate of the step after `step`: linear warm-up, then a cosine to `FINAL_LR` (Loshchilov & Hutter 2017)."""
        done = step - self.first
        total = math.inf if self.last is None else self.last - self.first
        warmup = min(WARMUP_STEPS, total / 10)
        if done < warmup:
            return self.peak_lr * (done + 1) / (warmup + 1)
        progress = min(1.0, (done - warmup) / max(1, total - warmup))
        return self.peak_lr * (FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress)))

    def end(self, last: int, eval_every: int, chars_per_step: int, val_chars: int) -> None:
        """Fix the last step and, with `eval_every` 0, how often to evaluate: seldom enough for `EVALUATION_SHARE`.

        A forward pass takes about a third of a training step.
        """
        self.last = last
        steps = max(1, last - self.first)
        affordable = 3 * EVALUATION_SHARE * steps * chars_per_step / max(1, val_chars)
        evaluations = min(EVALUATIONS, max(2, int(affordable)))
        self.eval_every = eval_every or max(1, math.ceil(steps / evaluations))


@dataclass(frozen=True)
class Point:
    """One row of a run's history, written at each evaluation."""

    step: int
    loss_nats: float  # mean training loss since the row before
    val_nats: float | None
    lr: float
    grad_norm: float  # mean, before clipping, since the row before; so are the shares below
    update_ratio: float
    weight_norm: float
    cell_max: float  # largest |c| since the row before
    saturated: float


@dataclass
class Tally:
    """Sums since the last row of the history."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    update_ratio: float = 0.0
    saturated: float = 0.0
    cell_max: float = 0.0


@dataclass
class TrainState:
    """A run at rest."""

    shape: ModelConfig
    config: TrainConfig
    vocabulary: Vocabulary
    text: TextInfo
    params: Arrays
    slots: Arrays
    good: Arrays  # the parameters of the last good snapshot
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
    arithmetic: str = ""  # `arithmetic.fingerprint` of the machine it is trained on; older files don't say

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return model.parameter_count(self.shape)

    @property
    def memory_bytes(self) -> int:
        """What training needs beside the interpreter and the text, in float32: weights, slots, gradients, buffers.

        Weights are kept twice (the last good ones). Each part has its gradients twice and its weights as the loops like them, about
        twice. An evaluation has buffers of its own.
        """
        weights = self.parameters * (2 + (6 if self.shape.dropout else 4) * self.config.parts)
        weights += sum(slot.size for slot in self.slots.values())
        window = model.Workspace.numbers(self.shape, self.config.seq, self.config.batch)
        evaluated = model.Workspace.numbers(self.shape, evaluation.window_steps(self.shape), evaluation.STREAMS)
        return 4 * (weights + window + evaluated)

    @property
    def chars_trained(self) -> int:
        """Characters read so far, counting repetitions."""
        return self.step * self.config.batch * self.config.seq


def begin(
    corpus: Corpus, config: TrainConfig, threads: int = 1, origin: Writer | None = None
) -> tuple[TrainState, list[str]]:
    """A new run on a text, before its first step, laid out for so many threads; and, in words, what had to be made to fit.

    With an origin the weights are its, where its vocabulary has the character; the text's must hold all of that.
    """
    notes = []
    train_ids, val_ids = corpus.split(config.val_fraction)
    batch, seq = fit(len(train_ids), config.batch, config.seq)
    if (batch, seq) != (config.batch, config.seq):
        notes.append(
            f"the text is short: batch {config.batch} and window {config.seq} were made to fit as {batch} and {seq}"
        )
    if config.val_fraction > 0 and not len(val_ids):
        notes.append("the text is too short to hold any of it back: there is no validation loss")
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
