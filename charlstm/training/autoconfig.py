"""Chooses model size and dropout from the text, the budget and the machine's speed.

The constants come from `tests/experiments/learn.py`; docs/quality.md has the tables.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from charlstm import launcher
from charlstm.nn.config import ModelConfig, ModelSize, embedding_for
from charlstm.nn.model import parameter_count
from charlstm.nn.optim import MUON_COEFFICIENTS, MUON_ROWS
from charlstm.nn.threads import ThreadPool, shards_for
from charlstm.settings import LEARNING_RATES, Budget, TrainConfig, default_budget
from charlstm.text.batches import fit

SIZES = ((1, 64), (1, 96), (1, 128), (1, 192), (1, 256), (1, 384), (1, 512), (1, 768), (1, 1024), (2, 1024))
"""(layers, hidden) of the models to choose from, in ascending order of size."""
DEEPER = {(1, 384): (2, 256), (1, 512): (2, 320), (1, 768): (2, 512), (1, 1024): (2, 640)}
"""Two-layer replacements of one-layer models, at nearly the same cost; they memorize less and learn more slowly."""
DEEPER_FROM = 5.0
"""Number of weighted epochs (see `Reach.weighted_epochs`) from which a two-layer model is better."""
CHARS_PER_PARAMETER, PRETRAINED_CHARS_PER_PARAMETER = 5.0, 3.0
"""Characters that training must read per parameter for a larger model to be worth it; the second, if it starts from pretrained weights."""
REPEATS, REPEATED_CHARS_PER_PARAMETER, FEW_CELLS = 2.0, 3.0, 256
"""A model of more than `FEW_CELLS` cells that reads the text at least `REPEATS` times needs `REPEATED_CHARS_PER_PARAMETER`: in the same
time a smaller one would read the text more often, and a text teaches less every time."""
PARAMETERS_PER_CHAR = 1.5
"""Maximum number of parameters per character of text; a larger model only memorizes the text."""
DROPOUT = ((3.0, 0.0), (5.0, 0.15), (8.0, 0.2), (11.0, 0.25), (60.0, 0.3), (math.inf, 0.5))
"""Pairs of (maximum weighted epochs, dropout rate of a single layer), in ascending order."""
DEEP_DROPOUT = ((3.0, 0.0), (5.0, 0.1), (13.0, 0.15), (18.0, 0.2), (28.0, 0.25), (math.inf, 0.3))
"""The same where there are several layers, each of which drops some of its outputs."""
PRETRAINED_DROPOUT = 0.3
"""Maximum dropout of a run that starts from pretrained weights."""
PRETRAINED_RATES = ((80_000, 0.25), (math.inf, 0.5))
"""Factors on its learning rate, each for texts of up to this many characters."""
ENOUGH_CHARS = 4_000_000
"""Characters of text from which a model learns as much without pretrained weights, if training reads them."""
RANK_STREAMS, FEW_RANKS = 32, 2
"""Streams of the default batch per rank of an MPI job of more than `FEW_RANKS`; a smaller one has the batch of one machine."""
EPOCH_STEPS = 50
"""Minimum number of steps per epoch for a default batch that is larger than that of one machine."""
LARGE_BATCH, LARGE_BATCH_RATE = 128, 1.4
"""Streams from which on Muon's learning rate has this factor."""
LOGITS = 1 << 24
"""Maximum number of logits in a window, which limits memory when the vocabulary is very large."""
PROBES, PROBE_S = 4, 0.04
"""How often the speed is measured, and for how many seconds. The best counts: other work on the machine can only lower it."""
EFFICIENCY = 0.6
"""Fraction of the measured speed that training reaches, until its own steps tell: see `charlstm.training.pace`."""


@dataclass(frozen=True)
class Choice:
    """Settings chosen for a text and a budget, keyed as in `TrainConfig`, and a note that explains the choice."""

    settings: dict[str, Any]
    why: str


@dataclass(frozen=True)
class Reach:
    """How far a budget goes on a text, for models of different sizes."""

    chars: int  # of the training text
    V: int  # vocabulary size
    window: int  # characters per step: batch * seq
    readable: float  # maximum number of characters, whatever the speed
    flops: float | None  # per second that training reaches; None: time does not matter
    seconds: float

    @classmethod
    def of(
        cls,
        chars: int,
        V: int,
        budget: Budget,
        window: tuple[int, int],
        threads: int,
        pretrained: bool,
        flops: float | None,
    ) -> Reach:
        """Measure the machine's speed if the budget is a time and `flops` does not tell it; others give the same everywhere."""
        batch, seq = fit(chars, *window)  # as training does
        readable, (_, epochs) = math.inf, default_budget(chars, pretrained)
        if budget.epochs is not None:
            readable, flops = budget.epochs * chars, None
        elif budget.steps is not None:
            readable, flops = float(budget.steps * batch * seq), None
        else:
            flops = flops or EFFICIENCY * speed(shards_for(batch, threads))
            readable = math.inf if budget.minutes is not None else float(epochs * chars)
        return cls(chars, V, batch * seq, readable, flops, seconds_of(budget, chars, pretrained))

    def affordable(self, layers: int, hidden: int) -> float:
        """Return how many characters training can read within the budget."""
        if self.flops is None:
            return self.readable
        by_time = self.flops * self.seconds / work(layers, hidden, self.V, self.window)
        return min(self.readable, by_time)

    def epochs(self, layers: int, hidden: int) -> float:
        """Return the number of epochs within the budget."""
        return self.affordable(layers, hidden) / max(1, self.chars)

    def weighted_epochs(self, layers: int, hidden: int) -> float:
        """Return epochs * sqrt(parameters / characters of text): a small model can read a long text often without memorizing it."""
        return self.epochs(layers, hidden) * math.sqrt(weights(layers, hidden, self.V) / max(1, self.chars))


def seconds_of(budget: Budget, chars: int, pretrained: bool) -> float:
    """Return a budget's time in seconds, or that of the default budget if it has none: see `settings.default_budget`."""
    return 60 * (budget.minutes or default_budget(chars, pretrained)[0])


def choose(
    chars: int,
    V: int,
    budget: Budget,
    overrides: dict[str, Any],
    threads: int,
    pretrained: ModelSize | None = None,
    flops: float | None = None,
) -> Choice:
    """Choose the settings that the user left open.

    Args:
        chars: length of the training text.
        V: vocabulary size.
        budget: if it is in steps or epochs, no speed is measured and the choice is the same on every machine.
        overrides: settings given by the user, which are never changed.
        threads: number of cores to use.
        pretrained: the model whose weights training starts from; the chosen one is at least as large.
        flops: operations per second that training reaches; None: measure matrix products.
    """
    open_ones, optimizer = ["hidden", "layers", "dropout"], overrides.get("optimizer", TrainConfig.optimizer)
    batch, seq = _window(chars, V, overrides)
    reach = Reach.of(chars, V, budget, (batch, seq), threads, pretrained is not None, flops)
    layers, hidden = _size(reach, overrides, pretrained)
    rate = dropout_for(reach.weighted_epochs(layers, hidden), layers)
    settings: dict[str, Any] = {"layers": layers, "hidden": hidden, "batch": batch, "seq": seq, "dropout": rate}
    if pretrained:
        open_ones.append("lr")
        settings["dropout"] = min(PRETRAINED_DROPOUT, rate)
        factor = next(factor for limit, factor in PRETRAINED_RATES if chars <= limit)
        settings["lr"] = factor * LEARNING_RATES[optimizer]
    elif settings["batch"] >= LARGE_BATCH and optimizer == "muon":
        open_ones.append("lr")
        settings["lr"] = LARGE_BATCH_RATE * LEARNING_RATES["muon"]
    settings |= overrides
    chosen = [f"`{name}` {settings[name]:g}" for name in open_ones if name not in overrides]
    epochs = reach.epochs(layers, hidden)
    number = f"{epochs:.0f}" if epochs >= 1.5 else f"{epochs:.1f}"
    return Choice(settings, f"chosen for this budget (about {number} epochs): {', '.join(chosen)}" if chosen else "")


def dropout_for(weighted_epochs: float, layers: int) -> float:
    """Return the dropout rate for a number of `Reach.weighted_epochs`."""
    return next(rate for limit, rate in (DROPOUT if layers == 1 else DEEP_DROPOUT) if weighted_epochs <= limit)


def is_enough(chars: int, V: int, budget: Budget, overrides: dict[str, Any], threads: int) -> bool:
    """Return whether training reads `ENOUGH_CHARS` different characters; the arguments are those of `choose`."""
    reach = Reach.of(chars, V, budget, _window(chars, V, overrides), threads, False, None)
    return min(chars, reach.affordable(*_size(reach, overrides, None))) >= ENOUGH_CHARS


def _window(chars: int, V: int, overrides: dict[str, Any]) -> tuple[int, int]:
    """Return batch and seq, reduced for a large vocabulary until a window has at most `LOGITS` logits."""
    seq = overrides.get("seq", TrainConfig.seq)
    wanted = RANK_STREAMS * launcher.ranks if launcher.ranks > FEW_RANKS else 0
    batch = overrides.get("batch", max(TrainConfig.batch, min(wanted, chars // (EPOCH_STEPS * seq))))
    while batch * seq * V > LOGITS and (
        ("batch" not in overrides and batch > 8) or ("seq" not in overrides and seq > 16)
    ):
        if "seq" not in overrides and seq > 16:
            seq //= 2
        if "batch" not in overrides and batch > 8:
            batch //= 2
    return batch, seq


def _size(reach: Reach, overrides: dict[str, Any], least: ModelSize | None) -> tuple[int, int]:
    """Return layers and hidden of the largest model that the budget trains and the text is long enough for.

    It has no fewer layers and cells than `least`, which training starts from.
    """
    cells = sorted({cells for _, cells in SIZES})
    ladder: Sequence[tuple[int, int]] = [(overrides["layers"], H) for H in cells] if "layers" in overrides else SIZES
    if least:
        first = (overrides.get("layers", least.layers), least.hidden)
        ladder = [first, *(size for size in ladder if size != first and _holds(size, least))]
    sizes = [size for size in ladder if overrides.get("hidden", size[1]) == size[1]]
    sizes = sizes or [(overrides.get("layers", least.layers if least else 1), overrides["hidden"])]
    best = sizes[0]
    for larger in sizes[1:]:
        size = weights(*larger, reach.V)
        needed = _chars_per_parameter(*larger, reach, pretrained=least is not None)
        if reach.affordable(*larger) >= needed * size and size <= PARAMETERS_PER_CHAR * reach.chars:
            best = larger
    if not {"layers", "hidden"} & overrides.keys() and reach.weighted_epochs(*best) >= DEEPER_FROM:
        deeper = DEEPER.get(best, best)
        best = deeper if _holds(deeper, least) else best
    return best


def _chars_per_parameter(layers: int, hidden: int, reach: Reach, *, pretrained: bool) -> float:
    if pretrained:
        return PRETRAINED_CHARS_PER_PARAMETER
    repeated = hidden > FEW_CELLS and reach.epochs(layers, hidden) >= REPEATS
    return REPEATED_CHARS_PER_PARAMETER if repeated else CHARS_PER_PARAMETER


def _holds(size: tuple[int, int], least: ModelSize | None) -> bool:
    return least is None or (size[0] >= least.layers and size[1] >= least.hidden)


def parameters(layers: int, hidden: int, V: int) -> int:
    """Return the number of trainable parameters of a model."""
    return parameter_count(ModelConfig(V, embedding_for(V), multiplicative=True, hidden=hidden, layers=layers))


def weights(layers: int, hidden: int, V: int) -> int:
    """Return the number of parameters without the embedding and M, of which each character uses one row."""
    E = embedding_for(V)
    return parameters(layers, hidden, V) - V * E - hidden * (E or V)


def work(layers: int, hidden: int, V: int, window: int) -> float:
    """Return the floating-point operations per character that training reads.

    They are six per weight that takes part in a matrix product, plus those of Muon, which orthogonalizes blocks of rows
    once per window of `window` characters, with three products per iteration.
    """
    E = embedding_for(V)
    top = E * (V + hidden) if E else V * hidden
    matrices = 2 * layers - 1
    rows = min(hidden, MUON_ROWS)
    orthogonal = matrices * 8.0 * hidden * rows * (2 * hidden + rows) * len(MUON_COEFFICIENTS) / window
    return 6.0 * (4 * hidden * (E + hidden) + (layers - 1) * 8 * hidden**2 + top) + orthogonal


@cache
def speed(threads: int) -> float:
    """Measure, once in a process, floating-point operations per second in matrix products like those of training, on `threads` cores.

    If ranks train together, they count as as fast as this one.
    """
    measured = 1 if launcher.ranks > 1 else threads
    rng = np.random.default_rng(0)
    left, right = rng.random((128, 256), np.float32), rng.random((256, 256), np.float32)

    def job(_: int) -> float:
        out, count, began = np.empty((128, 256), np.float32), 0, time.perf_counter()
        while time.perf_counter() - began < PROBE_S:
            np.matmul(left, right, out=out)
            count += 1
        return count * 2 * 128 * 256 * 256 / (time.perf_counter() - began)

    with ThreadPool(measured) as pool:
        return threads / measured * max(sum(pool.map(job, measured)) for _ in range(PROBES))
