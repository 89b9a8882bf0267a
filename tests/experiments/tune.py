"""What a setting does to a small text, by steps and over folds: from scratch or from a base, so that no clock has a say.

    python -m tests.experiments.tune TEXT --steps 300 --folds 1 "hidden=128 dropout=0.3" "base='english' dropout=0.3 lr=0.0125"

A variant is NAME=VALUE …; a name is a setting of `TrainConfig`, MODULE.CONSTANT of a module listed below, or `base`: a run
or the path of a checkpoint. Prints for each variant the mean of the best held-out losses over the folds.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import time
from pathlib import Path
from typing import Any

from charlstm import blas

blas.prepare()

import numpy as np  # noqa: E402

from charlstm.inference import evaluation, ngram  # noqa: E402
from charlstm.nn import lstm, model, optim  # noqa: E402
from charlstm.settings import TrainConfig  # noqa: E402
from charlstm.storage import pretrained as weights  # noqa: E402
from charlstm.text import batches, corpus  # noqa: E402
from charlstm.training import loop, state  # noqa: E402

MODULES = {m.__name__.rpartition(".")[2]: m for m in (batches, evaluation, lstm, model, optim, state, loop)}
FOLDS = 5


def fold(ids: Any, k: int) -> tuple[Any, Any]:
    """The text without its k-th held-out tenth, of five spread over it, and that tenth."""
    tenth = len(ids) // 10
    start = tenth * (2 * k + 1)
    return np.concatenate([ids[:start], ids[start + tenth :]]), ids[start : start + tenth]


def learn(text: str, steps: int, folds: int, variant: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in variant.split():
        name, _, value = word.partition("=")
        module, _, constant = name.rpartition(".")
        if module:
            setattr(MODULES[module], constant, ast.literal_eval(value))
        else:
            values[name] = ast.literal_eval(value)
    base = values.pop("base", None)
    steps = values.pop("steps", steps)
    read = corpus.read((str(text),))
    V = len(read.vocabulary)
    plain = read.ids
    pretrained = None
    if base:
        pretrained = weights.from_run(base, Path("checkpoints"))
        read, _ = read.joined(pretrained.model.vocabulary)
        values |= {"hidden": pretrained.model.config.hidden, "layers": pretrained.model.config.layers}
    out: dict[str, list[float]] = {"best": [], "last": [], "ngram": [], "zero": [], "loss": [], "first": []}
    began = time.monotonic()
    for k in range(folds):
        config = TrainConfig(**{"seed": 1 + k} | values)
        train_ids, val_ids = fold(read.ids, k)
        plain_train, plain_val = fold(plain, k)
        run, _ = state.begin(read, config, blas.cores(), pretrained)
        mark = ngram.best(plain_train, plain_val, V)
        assert mark is not None
        out["ngram"].append(mark.nats)
        out["zero"].append(evaluation.evaluate(run.params, run.shape, val_ids))
        run.schedule.end(steps, max(1, -(-steps // 12)), config.batch * config.seq, len(val_ids))
        for _ in loop.train(run, train_ids, val_ids, blas.cores()):
            pass
        vals = [p.val_nats for p in run.history if p.val_nats is not None]
        out["best"].append(min(vals))
        out["first"].append(vals[0])
        out["last"].append(vals[-1])
        out["loss"].append(run.history[-1].loss_nats)
        where = int(np.argmin(vals)) + 1
        out.setdefault("where", []).append(where / len(vals))
    seconds = time.monotonic() - began
    mean = {name: float(np.mean(v)) for name, v in out.items()}
    mean["chars_per_s"] = folds * run.step * config.batch * config.seq / seconds
    mean["passes"] = steps * config.batch * config.seq / len(train_ids)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.tune", description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("variants", nargs="+", metavar="VARIANT")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--folds", type=int, default=2)
    options = parser.parse_intermixed_args()
    print(
        f"| {options.steps} steps on {options.text.name}, {options.folds} folds | best | n-gram | gain | last | before | first | training | best at | passes | k/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for variant in options.variants:
            m = pool.apply(learn, (str(options.text.resolve()), options.steps, options.folds, variant))
            print(
                f"| `{variant}` | **{m['best']:.3f}** | {m['ngram']:.3f} | {m['ngram'] - m['best']:.3f} | {m['last']:.3f} | {m['zero']:.3f} | {m['first']:.3f} | "
                f"{m['loss']:.3f} | {m['where']:.2f} | {m['passes']:.0f} | {m['chars_per_s'] / 1000:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
