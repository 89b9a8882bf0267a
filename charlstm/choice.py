"""Model and schedule from a budget: what suits so much text, so much time and so fast a machine.

The numbers come from `tests/experiments/learn.py`; docs/quality.md has its tables.
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
from charlstm.nn.parallel import Crew, parts_for
from charlstm.settings import DEFAULT_MINUTES, DEFAULT_PASSES, Budget, TrainConfig

SIZES = ((1, 64), (1, 96), (1, 128), (1, 192), (1, 256), (1, 384), (1, 512), (1, 768), (1, 1024), (2, 1024))
"""Layers and cells, from the smallest model to the largest."""
DEEPER = {(1, 384): (2, 256), (1, 512): (2, 320), (1, 768): (2, 512), (1, 1024): (2, 640)}
"""Two layers in place of one, for nearly the same work; they learn less by heart, and learn slower."""
DEEPER_FROM = 5.0
"""They are worth it from so many passes on, counted as for `DROPOUT`."""
CHARS_PER_PARAMETER = 5.0
"""A model is worth its size if training reads so many characters for each of its parameters."""
PARAMETERS_PER_CHAR = 1.5
"""More parameters than this for each character of the text only learn it by heart."""
DROPOUT = ((2.5, 0.0), (4.5, 0.25), (10.0, 0.3), (30.0, 0.4), (float("inf"), 0.5))
"""Dropout for so many passes at most, each counted as many times as the square root of the parameters that the model has for a character of
the text: a small model of a long text can be read often and learns nothing by heart."""
LOGITS = 1 << 24
"""A window has no more logits than this, which a very large vocabulary would take a machine's memory for."""
PROBE_S = 0.1
"""How long the machine's speed is measured."""
EFFICIENCY = 0.6
"""What training reaches of that speed."""


@dataclass(frozen=True)
class Choice:
    """Settings that suit a text and a budget, under the names of `TrainConfig`, and why, in words."""

    settings: dict[str, Any]
    why: str


def choose(chars: int, V: int, budget: Budget, wishes: dict[str, Any], threads: int) -> Choice:
    """The settings that the user left open.

    Args:
        chars: of the text to train on.
        V: its vocabulary.
        budget: minutes are measured with the machine's speed; steps and epochs need no measuring, so they give the same choice everywhere.
        wishes: settings that the user gave; they stand.
        threads: cores to use.
    """
    defaults = TrainConfig()
    batch, seq = wishes.get("batch", defaults.batch), wishes.get("seq", defaults.seq)
    while batch * seq * V > LOGITS and (("batch" not in wishes and batch > 8) or ("seq" not in wishes and seq > 16)):
        if "seq" not in wishes and seq > 16:
            seq //= 2
        if "batch" not in wishes and batch > 8:
            batch //= 2
    flops, readable = None, float("inf")
    if budget.epochs is not None:
        readable = budget.epochs * chars
    elif budget.steps is not None:
        readable = float(budget.steps * batch * seq)
    else:
        flops = speed(threads if parts_for(batch, threads) > 1 else 1)
        readable = float("inf") if budget.minutes is not None else float(DEFAULT_PASSES * chars)
    seconds = 60 * (budget.minutes or DEFAULT_MINUTES)

    def affordable(layers: int, hidden: int) -> float:
        """Characters that training can read in the budget."""
        by_time = float("inf") if flops is None else EFFICIENCY * flops * seconds / work(layers, hidden, V, batch * seq)
        return min(readable, by_time)

    cells = sorted({cells for _, cells in SIZES})
    ladder: Sequence[tuple[int, int]] = [(wishes["layers"], H) for H in cells] if "layers" in wishes else SIZES
    sizes = [size for size in ladder if wishes.get("hidden", size[1]) == size[1]]
    sizes = sizes or [(wishes.get("layers", 1), wishes["hidden"])]
    layers, hidden = sizes[0]
    for larger in sizes[1:]:
        size = weights(*larger, V)
        if affordable(*larger) >= CHARS_PER_PARAMETER * size and size <= PARAMETERS_PER_CHAR * chars:
            layers, hidden = larger

    def by_heart(layers: int, hidden: int) -> float:
        """Passes over the text, each counted by the parameters that the model has for a character of it: see `DROPOUT`."""
        return affordable(layers, hidden) / max(1, chars) * math.sqrt(weights(layers, hidden, V) / max(1, chars))

    if not {"layers", "hidden"} & wishes.keys() and by_heart(layers, hidden) >= DEEPER_FROM:
        layers, hidden = DEEPER.get((layers, hidden), (layers, hidden))
    passes = affordable(layers, hidden) / max(1, chars)
    settings: dict[str, Any] = {
        "layers": layers,
        "hidden": hidden,
        "batch": batch,
        "seq": seq,
        "dropout": next(share for limit, share in DROPOUT if by_heart(layers, hidden) <= limit),
    }
    settings |= wishes
    open_ones = [name for name in ("hidden", "layers", "dropout") if name not in wishes and name in settings]
    chosen = ", ".join(f"--{name} {settings[name]:g}" for name in open_ones)
    for_what = "the text is read about " + (f"{passes:.0f} times" if passes >= 1.5 else f"{passes:.1f} times")
    return Choice(settings, f"chosen for this budget, in which {for_what}: {chosen}" if open_ones else "")


def parameters(layers: int, hidden: int, V: int) -> int:
    """How many numbers a model learns."""
    return parameter_count(ModelConfig(V, hidden, layers, embedding_for(V)))


def weights(layers: int, hidden: int, V: int) -> int:
    """The parameters without the embedding's, of which a character touches one row."""
    return parameters(layers, hidden, V) - V * embedding_for(V)


def work(layers: int, hidden: int, V: int, window: int) -> float:
    """Floating-point operations for each character that training reads.

    Six for each weight that is multiplied with; and those by which Muon makes H x H matrices orthogonal once in a window of so many
    characters: four gates, each with three products an iteration, two of them half ones.
    """
    E = embedding_for(V)
    one_hot = 0 if E else 2.0 * 4 * hidden * V  # its product with W is a lookup, but the gradient of W is one
    top = E * (V + hidden) if E else V * hidden
    matrices = 2 * layers - 1
    orthogonal = matrices * 4 * 4 * hidden**3 * len(MUON_COEFFICIENTS) / window
    return 6.0 * (4 * hidden * (E + hidden) + (layers - 1) * 8 * hidden**2 + top) + one_hot + orthogonal


def speed(threads: int) -> float:
    """Floating-point operations a second in products as training has them, on so many cores."""
    rng = np.random.default_rng(0)
    left, right = rng.random((128, 256), np.float32), rng.random((256, 256), np.float32)

    def job(_: int) -> float:
        out, count, began = np.empty((128, 256), np.float32), 0, time.perf_counter()
        while time.perf_counter() - began < PROBE_S:
            np.matmul(left, right, out=out)
            count += 1
        return count * 2 * 128 * 256 * 256 / (time.perf_counter() - began)

    with Crew(threads) as crew:
        return sum(crew.map(job, threads))
