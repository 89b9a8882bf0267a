"""How long training takes to reach a given held-out loss, for charlstm and for PyTorch's LSTM with Adam and with Muon.

    python -m tests.benchmarks.time_to_loss TEXT [--targets 1.6 1.5] [--hidden 256] [--seeds 1] [--programs NAME ...] [--json FILE]

Each program trains from scratch for 150, 300, 600 … steps, each time with a whole schedule of its own and at three learning rates,
until its best loss is below the lowest target. Loss is plotted against the logarithm of time, along the best rate of each length, and
the time to a target is read off that line. All programs have the same windows, warm-up, clipping, size and held-out tail. The rate of
charlstm ends high, because it evaluates an average of its weights; that of PyTorch, which has none, decays to `TORCH_FINAL_LR` of its
peak, which is better for it. Only the time of training steps counts. Every run is a process of its own, and the programs take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charlstm import blas
from tests.benchmarks.workers import torch_step

ROOT = Path(__file__).resolve().parent.parent.parent
RATES = {
    "charlstm": (0.015, 0.025, 0.04),
    "torch adam": (0.005, 0.01, 0.02),
    "torch muon": (0.0125, 0.025, 0.05),
}
"""The learning rates of each program."""
LENGTHS = (150, 300, 600, 1200, 2400, 4800)
"""Steps of a run."""
TORCH_FINAL_LR = 0.02
BATCH, SEQ, HELD_OUT = 32, 64, 0.1

Fit = tuple[float, float]
"""Seconds of training, and the held-out loss after it."""


def fit_charlstm(text: str, hidden: int, steps: int, lr: float, seed: int) -> Fit:
    """Train charlstm with Muon, its default."""
    blas.prepare()
    from charlstm import events
    from charlstm.inference.evaluation import evaluate
    from charlstm.settings import TrainConfig
    from charlstm.text import corpus
    from charlstm.training import loop, state

    read = corpus.read((text,))
    config = TrainConfig(hidden=hidden, batch=BATCH, seq=SEQ, lr=lr, seed=seed, val_fraction=HELD_OUT)
    run, _ = state.begin(read, config, blas.cores())
    run.schedule.last, run.schedule.eval_every = steps, 10**9
    train_ids, val_ids = read.split(HELD_OUT)
    stream, before = loop.train(run, train_ids, val_ids[:0], blas.cores()), time.perf_counter()
    while run.step < steps:
        assert isinstance(next(stream), events.Progress)
    seconds = time.perf_counter() - before
    stream.close()
    return seconds, evaluate(run.averaged, run.shape, val_ids)


def fit_torch(text: str, hidden: int, steps: int, lr: float, seed: int, optimizer: str) -> Fit:
    """Train PyTorch's LSTM on the same windows, with the same schedule."""
    import numpy as np
    import torch

    from charlstm.text import corpus
    from charlstm.text.batches import RESET_CHARS, Batches, Cursor
    from charlstm.training import schedule as schedules

    schedules.FINAL_LR = TORCH_FINAL_LR
    read = corpus.read((text,))
    train_ids, val_ids = read.split(HELD_OUT)
    step, modules = torch_step(len(read.vocabulary), 1, hidden, BATCH, "onehot", optimizer, lr, seed)
    batches, cursor, rng = Batches(train_ids, BATCH, SEQ, RESET_CHARS // SEQ), Cursor(), np.random.default_rng(seed)
    schedule = schedules.Schedule(first=0, last=steps, peak_lr=1.0)
    before = time.perf_counter()
    for k in range(steps):
        window = batches.next(cursor, rng)
        ids = torch.from_numpy(np.concatenate([window.inputs, window.targets[-1:]]))
        step(ids, schedule.lr(k), torch.from_numpy(window.reset_mask))
    seconds = time.perf_counter() - before
    return seconds, _held_out_nats(modules, val_ids, len(read.vocabulary))


def _held_out_nats(modules: dict[str, Any], val_ids: Any, V: int) -> float:
    """The loss that `charlstm.inference.evaluation.evaluate` computes, of a model in PyTorch."""
    import numpy as np
    import torch
    from torch.nn import functional

    from charlstm.inference.evaluation import streams_of

    pairs = len(val_ids) - 1
    starts, length = streams_of(pairs)
    places = np.minimum(np.arange(length)[:, None] + starts, pairs - 1)
    counted = torch.from_numpy(np.arange(length)[:, None] + starts < pairs)
    inputs, targets = (torch.from_numpy(val_ids[places + k].astype(np.int64)) for k in (0, 1))
    total, state = 0.0, None
    with torch.inference_mode():
        for start in range(0, length, 32):
            part = slice(start, start + 32)
            y, state = modules["lstm"](functional.one_hot(inputs[part], V).float(), state)
            logits = modules["out"](y)
            nll = functional.cross_entropy(logits.view(-1, V), targets[part].reshape(-1), reduction="none")
            total += float(nll[counted[part].reshape(-1)].double().sum())
    return total / pairs


FITS: dict[str, Callable[..., Fit]] = {
    "charlstm": fit_charlstm,
    "torch adam": lambda **settings: fit_torch(optimizer="adam", **settings),
    "torch muon": lambda **settings: fit_torch(optimizer="muon", **settings),
}


def run(program: str, **settings: Any) -> Fit:
    """Run a fit in a process of its own, with BLAS as it comes."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    command = [sys.executable, "-m", "tests.benchmarks.time_to_loss", "--fit", json.dumps([program, settings])]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    seconds, nats = json.loads(done.stdout.splitlines()[-1])
    return seconds, nats


def time_to(target: float, line: list[Fit]) -> float:
    """Seconds to a loss, interpolated on the line of the best fits; inf if it is never reached, the first time if at once."""
    before = None
    for seconds, nats in line:
        if nats <= target:
            if before is None:
                return seconds
            share = (before[1] - target) / (before[1] - nats)
            return math.exp(math.log(before[0]) + share * (math.log(seconds) - math.log(before[0])))
        before = seconds, nats
    return math.inf


def main() -> None:
    """Train, print a table, and write JSON where it is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.time_to_loss")
    parser.add_argument("text", nargs="?", help="the text to train on")
    parser.add_argument("--targets", type=float, nargs="+", default=[1.6, 1.5], help="held-out losses to reach")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to average over")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], help="give up after a run of this many steps")
    parser.add_argument("--programs", nargs="+", choices=list(RATES), default=list(RATES), help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        program, settings = json.loads(options.fit)
        print(json.dumps(FITS[program](**settings)))
        return
    if not options.text:
        parser.error("name a text")
    text, lines, fits = str(Path(options.text).resolve()), {name: [] for name in options.programs}, []
    for steps in [n for n in LENGTHS if n <= options.longest]:
        for name in [name for name, line in lines.items() if not line or line[-1][1] > min(options.targets)]:
            found = []
            for lr in RATES[name]:
                each = [
                    run(name, text=text, hidden=options.hidden, steps=steps, lr=lr, seed=seed + 1)
                    for seed in range(options.seeds)
                ]
                seconds, nats = (statistics.mean(values) for values in zip(*each, strict=True))
                found.append((seconds, nats))
                fits.append({"program": name, "steps": steps, "lr": lr, "seconds": seconds, "nats": nats})
                print(f"{name}, {steps} steps at {lr:g}: {nats:.3f} in {seconds:.1f} s", file=sys.stderr, flush=True)
            lines[name].append(min(found, key=lambda fit: fit[1]))
    print("| seconds to | " + " | ".join(lines) + " |\n|---|" + "---|" * len(lines))
    for target in options.targets:
        print(f"| {target:.2f} | " + " | ".join(f"{time_to(target, line):.1f}" for line in lines.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
