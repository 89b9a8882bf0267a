"""What a change of a setting, of a constant or of the recipe does to learning: by steps and seeds, so that no clock has a say.

    python -m tests.experiments.variants TEXT --steps 1500 --seeds 1 2 3 "hidden=192" "hidden=192 optimizer='adam' lr=0.01"
    python -m tests.experiments.variants TEXT --steps 1500 "hidden=192 optim.MUON_MOMENTUM=0.9 recipe.rotate=True"
    python -m tests.experiments.variants TEXT --steps 300 --folds 1 "hidden=128 dropout=0.3" "base='english' dropout=0.3 lr=0.0125"

A variant is a list of NAME=VALUE. A name is a setting of `TrainConfig`, MODULE.CONSTANT of a module of the program, recipe.NAME (a
field of `Recipe` below), or `base`, a run to start from; a value is written as in Python. The same variant gives the same loss whatever
else the machine does. Each run has one core, and its time is that of the processor. The table goes to stdout, a row as soon as it is
known, and with ``--log`` each run is appended to a file as one line of JSON.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from charlstm import blas

blas.prepare()

import numpy as np  # noqa: E402

from charlstm import events, session  # noqa: E402
from charlstm.inference import evaluation, ngram  # noqa: E402
from charlstm.nn import lstm, model, optim  # noqa: E402
from charlstm.nn.types import Arrays  # noqa: E402
from charlstm.settings import TrainConfig  # noqa: E402
from charlstm.storage import pretrained  # noqa: E402
from charlstm.text import batches, corpus  # noqa: E402
from charlstm.training import loop, schedule, state  # noqa: E402

MODULES = {
    m.__name__.rpartition(".")[2]: m for m in (batches, evaluation, lstm, model, optim, schedule, session, state, loop)
}
EVALUATIONS = 4
FOLDS = 5
CONTEXT = 256


@dataclass
class Recipe:
    """What the program does not do, or not yet: each is off by default."""

    ema: tuple[
        float, ...
    ] = ()  # averages of the weights of all steps t, in proportion to t ** power, evaluated at the end
    rotate: bool = False  # streams of each epoch begin anywhere in the text, which is read as a ring
    decay: float = 0.0  # weight decay of the hidden matrices, times the rate
    decay_power: float = 0.0  # decay in proportion to (lr / peak) ** power
    orthogonal: float = 0.0  # draw every gate of U orthogonal, times this
    gates: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # factors on Muon's rate for i, f, o, g
    rates: dict[str, float] = field(default_factory=dict)  # factors on the rate, by parameter
    every: int = 1  # the hidden matrices change at one step in this many, by as many times as much
    rows: bool = False  # every row of Muon's change has length 1
    residual: bool = False  # layers above the first add their input to their output
    shares: tuple[float, ...] = ()  # of the pretrained weights in the average, evaluated at the end
    plain: bool = False  # a first layer without M
    zero_bias: bool = False  # the output's bias begins as zero, not as the logarithms of the characters' frequencies
    pull: float = 0.0  # the hidden matrices are drawn back to where they started, by this times the rate
    averages: list[Arrays] = field(default_factory=list)
    start: Arrays = field(default_factory=dict)

    def begin(self, run: state.TrainState) -> None:
        """Change a run before its first step."""
        if self.zero_bias:
            for weights in (run.params, run.snapshot, run.averaged):
                weights["out.b"][:] = 0
        if self.rotate:
            loop.Batches = Rotated  # type: ignore[misc]
        if self.orthogonal:
            rng = np.random.default_rng(run.config.seed)
            for name in model.layer_names(run.shape):
                for gate in np.split(run.params[f"{name}.U"], 4):
                    gate[...] = self.orthogonal * np.linalg.qr(rng.standard_normal(gate.shape))[0]
        if self.gates != (1.0, 1.0, 1.0, 1.0) or self.rates or self.every > 1:
            optim.UPDATES["muon"] = self.muon_by_gate
        if self.rows:
            orthogonal = optim.orthogonal
            optim.orthogonal = lambda G: unit_rows(orthogonal(G))
        if self.residual:
            add_residuals()
        self.hidden = model.hidden_matrices(run.shape)
        self.start = {name: p.copy() for name, p in run.params.items()} if self.pull else {}
        self.averages = [{name: p.copy() for name, p in run.params.items()} for _ in self.ema]

    def muon_by_gate(self, params: Arrays, grads: Arrays, slots: Arrays, lr: float, t: int, pool: Any = None) -> float:
        """Muon, with a rate of its own for each gate of the hidden matrices and for each of `rates`, at this step."""
        now = self.every if (t - 1) % self.every == 0 else 0
        before = {name: params[name].copy() for name in {*self.hidden, *self.rates}}
        update = optim.muon(params, grads, slots, lr, t, pool)
        for name, old in before.items():
            p, factor = params[name], self.rates.get(name, 1.0)
            if name not in self.hidden:
                p += (factor - 1) * (p - old)
                continue
            for gate, old_gate, of_gate in zip(np.split(p, 4), np.split(old, 4), self.gates, strict=True):
                gate += (now * of_gate * factor - 1) * (gate - old_gate)
        return update

    def after(self, run: state.TrainState, lr: float) -> None:
        """Change or average the weights after a step."""
        if self.decay:
            factor = 1 - self.decay * lr * (lr / run.config.peak_lr) ** self.decay_power
            for name in self.hidden:
                run.params[name] *= factor
        if self.pull:
            for name in self.hidden:
                run.params[name] += self.pull * lr * (self.start[name] - run.params[name])
        for power, average in zip(self.ema, self.averages, strict=True):
            for name, p in run.params.items():
                average[name] += (power + 1) / (power + run.step) * (p - average[name])


def unit_rows(X: Any) -> Any:
    """Rows of length 1."""
    X /= np.maximum(np.sqrt(np.einsum("...k,...k->...", X, X)), 1e-6)[..., None]
    return X


def add_residuals() -> None:
    """Make every layer above the first add its input to its output, before dropout."""
    drop, backward = model._drop, lstm.backward

    def sum_and_drop(y: Any, k: int, config: Any, work: Any, rng: Any) -> Any:
        return drop(y if k == 0 else y + work.outputs[k - 1], k, config, work, rng)

    def backward_both(params: Arrays, d_y: Any, *more: Any, **named: Any) -> Any:
        grads, d_x, d_h, d_c = backward(params, d_y, *more, **named)
        return grads, None if d_x is None else d_x + d_y, d_h, d_c

    model._drop, lstm.backward = sum_and_drop, backward_both


class Rotated(batches.Batches):
    """Streams that begin at a new place in every epoch, anywhere in the text, which is read as a ring."""

    def __init__(self, ids: Any, N: int, T: int, reset_every: int = 0) -> None:
        super().__init__(ids, N, T, reset_every)
        self.slack, self.ring = len(ids) - 1, len(ids)
        self.ids = np.concatenate([ids, ids[: self.windows * N * T + 1]])


def parse(variant: str) -> dict[str, Any]:
    """A variant as names and values; a name must be known."""
    found = {}
    for word in variant.split():
        name, _, value = word.partition("=")
        module, _, constant = name.rpartition(".")
        if module == "recipe":
            known = constant in Recipe.__dataclass_fields__
        elif module:
            known = hasattr(MODULES.get(module), constant)
        else:
            known = name in (*TrainConfig.__dataclass_fields__, "base")
        if not known:
            raise SystemExit(f"{name} is no setting of TrainConfig or Recipe, and no constant of {', '.join(MODULES)}")
        found[name] = ast.literal_eval(value)
    return found


def fold(ids: Any, k: int) -> tuple[Any, Any]:
    """The text without its k-th held-out tenth, of five spread over it, and that tenth."""
    tenth = len(ids) // 10
    start = tenth * (2 * k + 1)
    return np.concatenate([ids[:start], ids[start + tenth :]]), ids[start : start + tenth]


def losses(run: state.TrainState, params: Arrays, ids: Any) -> tuple[float, float]:
    """The loss on a held-out text by the protocols tail and windowed-256."""
    starts, length = evaluation.streams_of(len(ids) - 1, CONTEXT)
    cold = [nll for _, nll in evaluation.char_nll(params, run.shape, ids, starts, length)]
    return evaluation.evaluate(params, run.shape, ids), float(np.concatenate(cold).mean(dtype=np.float64))


def learn(text: str, steps: int, seed: int, k: int | None, variant: str) -> dict[str, Any]:
    """Train once, in this process, whose constants are changed for good; `k` is the tenth to hold out, None the last."""
    values = parse(variant)
    recipe = Recipe(**{name[7:]: values.pop(name) for name in list(values) if name.startswith("recipe.")})
    for name in [name for name in values if "." in name]:
        module, _, constant = name.rpartition(".")
        setattr(MODULES[module], constant, values.pop(name))
    read, base = corpus.read((text,)), values.pop("base", None)
    V, plain = len(read.vocabulary), read.ids
    weights = pretrained.from_run(base, Path("checkpoints"), values) if base else None
    if weights:
        read, _ = read.joined(weights.model.vocabulary)
        values = {"hidden": weights.model.config.hidden, "layers": weights.model.config.layers} | values
    config = TrainConfig(**{"seed": seed} | values)
    if recipe.plain:
        shape = state._shape
        state._shape = lambda *sizes: replace(shape(*sizes), multiplicative=False)
    run, _ = state.begin(read, config, 1, weights)
    train_ids, val_ids = read.split(config.val_fraction) if k is None else fold(read.ids, k)
    recipe.begin(run)
    before = evaluation.evaluate(run.params, run.shape, val_ids)
    chars = config.batch * config.seq
    run.schedule.end(steps, -(-steps // (EVALUATIONS if k is None else 12)), chars, len(val_ids))
    began, cell_max = time.process_time(), 0.0
    for event in loop.train(run, train_ids, val_ids, 1):
        if isinstance(event, events.Progress):
            cell_max = max(cell_max, event.cell_max)
            recipe.after(run, event.lr)
    seconds = time.process_time() - began
    vals = [row.val_nats for row in run.history if row.val_nats is not None]
    tail, cold = losses(run, run.averaged, val_ids)
    raw, _ = losses(run, run.params, val_ids)
    mixed = [
        optim.with_start_share(run.averaged, run.start, run.start_share, share) for share in recipe.shares if run.start
    ]
    averaged = [losses(run, average, val_ids) for average in (*recipe.averages, *mixed)]
    baseline = None if k is None else ngram.best(*fold(plain, k), V)
    return {
        "variant": variant,
        "steps": steps,
        "seed": seed,
        "fold": k,
        "tail": tail,
        "cold": cold,
        "raw": raw,
        "best": min(vals),
        "best_at": (int(np.argmin(vals)) + 1) / len(vals),
        "ema_tail": [nats for nats, _ in averaged],
        "ema_cold": [nats for _, nats in averaged],
        "before": before,
        "ngram": baseline.nats if baseline else float("nan"),
        "loss": run.history[-1].loss_nats,
        "epochs": steps * chars / len(train_ids),
        "step_ms": 1000 * seconds / steps,
        "cell_max": cell_max,
    }


def row(variant: str, runs: list[dict[str, Any]], middle: Any) -> str:
    """A row of the table: the middle of some runs."""

    def of(name: str) -> float:
        return float(middle([r[name] for r in runs]))

    averaged = "; ".join(
        f"{middle([r['ema_tail'][k] for r in runs]):.4f}, {middle([r['ema_cold'][k] for r in runs]):.4f}"
        for k in range(len(runs[0]["ema_tail"]))
    )
    each = " ".join(f"{r['tail']:.3f}" for r in runs)
    return (
        f"| `{variant}` | **{of('tail'):.4f}** | {each} | {of('cold'):.4f} | {of('raw'):.4f} | {averaged} | {of('best'):.4f} ({of('best_at'):.2f}) | "
        f"{of('before'):.3f} | {of('ngram'):.3f} | {of('loss'):.3f} | {of('epochs'):.1f} | {of('step_ms'):.1f} | {of('cell_max'):.0f} |"
    )


def main() -> None:
    """Run all variants, each run in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.variants", description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("variants", nargs="+", metavar="VARIANT", help="NAME=VALUE …, one string a variant")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--folds", type=int, default=0, help="hold out this many of five tenths in turn, instead of the last"
    )
    parser.add_argument("--log", type=Path, help="append every run to this file, as JSON")
    options = parser.parse_intermixed_args()
    for variant in options.variants:
        parse(variant)
    print(
        f"| {options.steps} steps on {options.text.name} | tail | of each run | windowed-{CONTEXT} | not averaged | other averages | best (at) | "
        f"before | n-gram | training | epochs | ms per step | largest abs. c |\n|{'---|' * 13}",
        flush=True,
    )
    jobs = [(1 + k, k) for k in range(options.folds)] or [(seed, None) for seed in options.seeds]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for variant in options.variants:
            runs = []
            for seed, k in jobs:
                runs.append(pool.apply(learn, (str(options.text.resolve()), options.steps, seed, k, variant)))
                if options.log:
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(json.dumps(runs[-1]) + "\n")
            print(row(variant, runs, mean if options.folds else median), flush=True)


if __name__ == "__main__":
    main()
