"""What a change of a setting, or of a constant that is no setting, does to learning: so many steps each, so that no clock has a say.

    python -m tests.experiments.variants TEXT --steps 1500 "hidden=192" "hidden=192 optimizer='adam' lr=0.01"
    python -m tests.experiments.variants TEXT --steps 1500 "hidden=192 optim.MUON_MOMENTUM=0.9 state.FINAL_LR=0.0"

A variant is a list of NAME=VALUE. A name is one of `TrainConfig`, or MODULE.CONSTANT of a module of the program; a value is written as in Python. The
same variant gives the same loss whatever else the machine does. The table goes to stdout, a row as soon as it is known.
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

from charlstm import events, session  # noqa: E402
from charlstm.inference import evaluation  # noqa: E402
from charlstm.nn import lstm, model, optim  # noqa: E402
from charlstm.settings import TrainConfig  # noqa: E402
from charlstm.text import batches, corpus  # noqa: E402
from charlstm.training import loop, state  # noqa: E402

MODULES = {m.__name__.rpartition(".")[2]: m for m in (batches, evaluation, lstm, model, optim, session, state, loop)}
EVALUATIONS = 4


def parse(variant: str) -> dict[str, Any]:
    """A variant as names and values; a name must be known."""
    found = {}
    for word in variant.split():
        name, _, value = word.partition("=")
        module, _, constant = name.rpartition(".")
        known = hasattr(MODULES.get(module), constant) if module else name in TrainConfig.__dataclass_fields__
        if not known:
            raise SystemExit(f"{name} is neither a setting of TrainConfig nor a constant of {', '.join(MODULES)}")
        found[name] = ast.literal_eval(value)
    return found


def learn(text: str, steps: int, seed: int, variant: str) -> dict[str, Any]:
    """Train once, in this process, whose constants are changed for good."""
    values = parse(variant)
    for name in [name for name in values if "." in name]:
        module, _, constant = name.rpartition(".")
        setattr(MODULES[module], constant, values.pop(name))
    read = corpus.read((text,))
    config = TrainConfig(**{"seed": seed} | values)
    run, _ = state.begin(read, config, blas.cores())
    train_ids, val_ids = read.split(config.val_fraction)
    run.schedule.end(steps, -(-steps // EVALUATIONS), config.batch * config.seq, len(val_ids))
    began, cell_max = time.monotonic(), 0.0
    for event in loop.train(run, train_ids, val_ids, blas.cores()):
        if isinstance(event, events.Progress):
            cell_max = max(cell_max, event.cell_max)
    seconds = time.monotonic() - began
    return {
        "val_nats": run.history[-1].val_nats,
        "loss_nats": run.history[-1].loss_nats,
        "passes": steps * config.batch * config.seq / len(train_ids),
        "cell_max": cell_max,
        "chars_per_s": steps * config.batch * config.seq / seconds,
    }


def main() -> None:
    """Run all variants, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.variants", description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("variants", nargs="+", metavar="VARIANT", help="NAME=VALUE …, one string a variant")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    for variant in options.variants:
        parse(variant)
    print(
        f"| {options.steps} steps on {options.text.name} | held out | training | passes | thousand chars/s | largest abs. c |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for variant in options.variants:
            found = pool.apply(learn, (str(options.text.resolve()), options.steps, options.seed, variant))
            print(
                f"| `{variant}` | **{found['val_nats']:.3f}** | {found['loss_nats']:.3f} | {found['passes']:.1f} | {found['chars_per_s'] / 1000:.0f} | {found['cell_max']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
