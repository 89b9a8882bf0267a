"""200 short runs over bad settings: none may end in a number that is not finite, a warning, or a silence about why it failed.

python -m tests.experiments.grid [--runs 200] [--seed 0] [--write docs/grid.md]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlstm import blas

blas.prepare()

import numpy as np  # noqa: E402

from charlstm import errors, events, launch  # noqa: E402
from charlstm.settings import Budget, RunOptions, TrainConfig, TrainRequest  # noqa: E402
from charlstm.storage import checkpoint  # noqa: E402
from charlstm.text.sources import bundled_path  # noqa: E402
from charlstm.training.control import Stop  # noqa: E402

AXES: dict[str, tuple[Any, ...]] = {
    "lr": (1e-4, 1e-2, 1.0, 1e2, 1e4),
    "optimizer": ("muon", "adam", "rmsprop", "sgd"),
    "clip": (0.0, 1.0),
    "scale": (0.01, 1.0, 10.0, 100.0),
    "dropout": (0.0, 0.5, 0.9),
    "seq": (1, 10, 100, 500),
    "batch": (1, 16, 256),
}
TEXT_CHARS = 60_000
CHARS_A_RUN = 120_000
MOST_STEPS, FEWEST_STEPS = 600, 40


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    setting: dict[str, Any]
    steps: int
    status: int
    reached: float
    letters: float
    recoveries: int
    sentence: str
    fault: str  # why this run breaks the promise; empty if it keeps it


def settings(runs: int, seed: int) -> list[dict[str, Any]]:
    """Combinations drawn from all of the grid, none twice."""
    everything = list(itertools.product(*AXES.values()))
    chosen = np.random.default_rng(seed).choice(len(everything), size=runs, replace=False)
    return [dict(zip(AXES, everything[i], strict=True)) for i in sorted(chosen)]


def run(setting: dict[str, Any], text: Path, folder: Path) -> Outcome:
    """One short run, through everything that a user's goes through."""
    scale = setting["scale"]
    overrides = {"hidden": 16, "eval_every": 20} | {k: v for k, v in setting.items() if k != "scale"}
    config = TrainConfig(**overrides)
    steps = min(MOST_STEPS, max(FEWEST_STEPS, CHARS_A_RUN // (config.batch * config.seq)))
    options, budget = RunOptions(preview_every_s=0, threads=1), Budget(steps=steps)
    request = TrainRequest((str(text),), overrides, budget, options, folder, "grid", if_exists="overwrite")
    made = launch.start(request, Stop())
    for weights in (made.state.params, made.state.snapshot):
        for name in weights:
            if not name.endswith("b"):
                weights[name] *= scale
    status, sentence, letters, seen = 0, "", 0.0, []
    noise = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(noise), contextlib.redirect_stdout(noise):
            warnings.simplefilter("error")
            for event in made.run():
                seen.append(event)
                if isinstance(event, events.Started):
                    letters = event.unigram_nats
                if isinstance(event, events.Finished):
                    sentence = event.hint
    except errors.CharlstmError as error:
        status, sentence = error.exit_status, str(error)
    state = made.state
    reached = state.best_val_nats if state.best_val_nats is not None else float("nan")
    learned = reached < letters
    on_disk = [path for path in folder.glob("grid*.npz") if not finite(path)]
    fault = ""
    if on_disk:
        fault = f"{on_disk[0].name} holds a number that is not finite"
    elif noise.getvalue():
        fault = f"it printed {noise.getvalue()[:60]!r}"
    elif not learned and not sentence:
        fault = "it neither learned nor said why"
    elif status == 0 and isinstance(seen[-1], events.Diverged):
        fault = "it ended well after having diverged"
    return Outcome(setting, steps, status, reached, letters, state.guard.recoveries, sentence, fault)


def finite(path: Path) -> bool:
    """Whether a checkpoint can be loaded, which it can't with a number in it that is not finite."""
    try:
        checkpoint.load(path)
    except errors.CheckpointError:
        return False
    return True


def table(outcomes: list[Outcome]) -> list[str]:
    """The runs as Markdown."""
    rows = ["| " + " | ".join([*AXES, "steps", "status", "nats", "recoveries", "what it said"]) + " |"]
    rows.append("|" + "---|" * (len(AXES) + 5))
    for o in outcomes:
        cells = [f"{v:g}" if isinstance(v, float) else str(v) for v in o.setting.values()]
        said = o.fault or o.sentence.split(": ", 1)[-1]
        rows.append(
            "| " + " | ".join([*cells, str(o.steps), str(o.status), f"{o.reached:.2f}", str(o.recoveries), said]) + " |"
        )
    return rows


def main() -> int:
    """Run the grid, print the table and the count, and return 1 if any run broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    outcomes, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        source = Path(bundled_path("corpora", "fables.txt"))
        text.write_text(source.read_text(encoding="utf-8")[:TEXT_CHARS], encoding="utf-8")
        for setting in settings(options.runs, options.seed):
            outcomes.append(run(setting, text, Path(folder)))
    faults = [o for o in outcomes if o.fault]
    learned = sum(o.reached < o.letters for o in outcomes)
    statuses = Counter(o.status for o in outcomes)
    counts = (
        f"{len(outcomes)} runs in {time.monotonic() - began:.0f} s: {learned} learned more than the letter frequencies "
        f"({outcomes[0].letters:.2f} nats), {len(outcomes) - learned} did not and said why; {statuses[0]} ended with status 0 and "
        f"{statuses[3]} with 3; {sum(o.recoveries > 0 for o in outcomes)} recovered at least once; {len(faults)} broke the promise."
    )
    lines = [*table(outcomes), "", counts]
    print("\n".join(lines))
    if options.write:
        options.write.write_text(
            "\n".join(
                [
                    "# 200 runs with bad settings",
                    "",
                    "`python -m tests.experiments.grid`",
                    "",
                    counts,
                    "",
                    *table(outcomes),
                    "",
                ]
            )
        )
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
