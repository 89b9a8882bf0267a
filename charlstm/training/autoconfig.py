"""Chooses model size and dropout from the text, the budget and the machine's speed.

The constants come from `tests/experiments/learn.py`; docs/quality.md has the tables.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlstm.nn.config import ModelConfig, embedding_for
from charlstm.nn.model import parameter_count
from charlstm.nn.optim import MUON_COEFFICIENTS
from charlstm.nn.threads import ThreadPool, shards_for
from charlstm.settings import DEFAULT_MINUTES, DEFAULT_PASSES, Budget, TrainConfig

SIZES = ((1, 64), (1, 96), (1, 128), (1, 192), (1, 256), (1, 384), (1, 512), (1, 768), (1, 1024), (2, 1024))
"""(layers, hidden) of the models to choose from, in ascending order of size."""
DEEPER = {(1, 384): (2, 256), (1, 512): (2, 320), (1, 768): (2, 512), (1, 1024): (2, 640)}
"""Two-layer replacements of one-layer models, at nearly the same cost; they memorize less and learn more slowly."""
DEEPER_FROM = 5.0
"""Number of weighted epochs (see `DROPOUT`) from which a two-layer model is better."""
CHARS_PER_PARAMETER = 5.0
"""Characters that training must read per parameter for a larger model to be worth it."""
PARAMETERS_PER_CHAR = 1.5
"""Maximum number of parameters per character of text; a larger model only memorizes the text."""
DROPOUT = ((2.5, 0.0), (4.5, 0.25), (10.0, 0.3), (30.0, 0.4), (float("inf"), 0.5))
"""Pairs of (maximum weighted epochs, dropout rate), in ascending order.

Weighted epochs are epochs * sqrt(parameters / characters of text): a small model can read a long text many times
without memorizing it."""
LOGITS = 1 << 24
"""Maximum number of logits in a window, which limits memory when the vocabulary is very large."""
PROBE_S = 0.1
"""Duration of the speed measurement in seconds."""
EFFICIENCY = 0.6
"""Fraction of the measured speed that training reaches."""


@dataclass(frozen=True)
class Choice:
    """Settings chosen for a text and a budget, keyed as in `TrainConfig`, and a note that explains the choice."""

    settings: dict[str, Any]
    why: str


def choose(chars: int, V: int, budget: Budget, overrides: dict[str, Any], threads: int) -> Choice:
    """Choose the settings that the user left open.

    Args:
        chars: length of the training text.
        V: vocabulary size.
        budget: if it is in steps or epochs, no speed is measured and the choice is the same on every machine.
        wishes: settings given by the user, which are never changed.
        threads: number of cores to use.
    """
    defaults = TrainConfig()
    batch, seq = overrides.get("batch", defaults.batch), overrides.get("seq", defaults.seq)
    while batch * seq * V > LOGITS and (
        ("batch" not in overrides and batch > 8) or ("seq" not in overrides and seq > 16)
    ):
        if "seq" not in overrides and seq > 16:
            seq //= 2
        if "batch" not in overrides and batch > 8:
            batch //= 2
    flops, readable = None, float("inf")
    if budget.epochs is not None:
        readable = budget.epochs * chars
    elif budget.steps is not None:
        readable = float(budget.steps * batch * seq)
    else:
        flops = speed(threads if shards_for(batch, threads) > 1 else 1)
        readable = float("inf") if budget.minutes is not None else float(DEFAULT_PASSES * chars)
    seconds = 60 * (budget.minutes or DEFAULT_MINUTES)

    def affordable(layers: int, hidden: int) -> float:
        """Return how many characters training can read within the budget."""
        by_time = float("inf") if flops is None else EFFICIENCY * flops * seconds / work(layers, hidden, V, batch * seq)
        return min(readable, by_time)

    cells = sorted({cells for _, cells in SIZES})
    ladder: Sequence[tuple[int, int]] = [(overrides["layers"], H) for H in cells] if "layers" in overrides else SIZES
    sizes = [size for size in ladder if overrides.get("hidden", size[1]) == size[1]]
    sizes = sizes or [(overrides.get("layers", 1), overrides["hidden"])]
    layers, hidden = sizes[0]
    for larger in sizes[1:]:
        size = weights(*larger, V)
        if affordable(*larger) >= CHARS_PER_PARAMETER * size and size <= PARAMETERS_PER_CHAR * chars:
            layers, hidden = larger

    def by_heart(layers: int, hidden: int) -> float:
        """Return the number of weighted epochs within the budget: see `DROPOUT`."""
        return affordable(layers, hidden) / max(1, chars) * math.sqrt(weights(layers, hidden, V) / max(1, chars))

    if not {"layers", "hidden"} & overrides.keys() and by_heart(layers, hidden) >= DEEPER_FROM:
        layers, hidden = DEEPER.get((layers, hidden), (layers, hidden))
    passes = affordable(layers, hidden) / max(1, chars)
    settings: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "batch": batch,
        "seq": seq,
        "dropout": next(share for limit, share in DROPOUT if by_heart(layers, hidden) <= limit),
    }
    settings |= overrides
    open_ones = [name for name in ("hidden", "layers", "dropout") if name not in overrides and name in settings]
    chosen = ", ".join(f"--{name} {settings[name]:g}" for name in open_ones)
    for_what = "about " + (f"{passes:.0f} epochs" if passes >= 1.5 else f"{passes:.1f} epochs")
    return Choice(settings, f"chosen for this budget ({for_what}): {chosen}" if open_ones else "")


def parameters(layers: int, hidden: int, V: int) -> int:
    """Return the number of trainable parameters of a model."""
    return parameter_count(ModelConfig(V, hidden, layers, embedding_for(V)))


def weights(layers: int, hidden: int, V: int) -> int:
    """Return the number of parameters without the embedding table, of which each character uses one row."""
    return parameters(layers, hidden, V) - V * embedding_for(V)


def work(layers: int, hidden: int, V: int, window: int) -> float:
    """Return the floating-point operations per character that training reads.

    They are six per weight that takes part in a matrix product, plus those of Muon, which orthogonalizes H x H matrices
    once per window of `window` characters: four gates, each with three products per iteration, two of them at half the
    cost.
    """
    E = embedding_for(V)
    one_hot = 0 if E else 2.0 * 4 * hidden * V  # forward is a lookup, but the gradient of W is a full product
    top = E * (V + hidden) if E else V * hidden
    matrices = 2 * layers - 1
    orthogonal = matrices * 4 * 4 * hidden**3 * len(MUON_COEFFICIENTS) / window
    return 6.0 * (4 * hidden * (E + hidden) + (layers - 1) * 8 * hidden**2 + top) + one_hot + orthogonal


def speed(threads: int) -> float:
    """Measure floating-point operations per second in matrix products like those of training, on `threads` cores."""
    rng = np.random.default_rng(0)
    left, right = rng.random((128, 256), np.float32), rng.random((256, 256), np.float32)

    def job(_: int) -> float:
        out, count, began = np.empty((128, 256), np.float32), 0, time.perf_counter()
        while time.perf_counter() - began < PROBE_S:
            np.matmul(left, right, out=out)
            count += 1
        return count * 2 * 128 * 256 * 256 / (time.perf_counter() - began)

    with ThreadPool(threads) as pool:
        return sum(pool.map(job, threads))
