"""What each mistake of a hand-written LSTM does to training: the figures and curves of docs/nan.md.

    python -m tests.experiments.nan [TEXT] [--steps N] [--chars N] [--seeds N] [--jobs N] [--write]

Prints them as Markdown; ``--write`` puts them into docs/nan.md between the two marks there. The setting is the one of the
hand-written program that this page is about: 100 cells, windows of 100 characters, one stream, plain gradient descent at 0.1,
weights drawn as randn / sqrt(z/2).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from charlstm import blas

blas.prepare()

import numpy as np  # noqa: E402

from charlstm.display import curve  # noqa: E402
from charlstm.text import corpus  # noqa: E402
from charlstm.text.sources import find  # noqa: E402
from tests.mistakes import ALL, NAMES, NONE, Mistakes, Row, only, train  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "nan.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
PAGE_WIDTH = 120
HIDDEN, SEQ, LR = 100, 100, 0.1

TITLES = {
    "sigmoid_slope": "sigmoid slope",
    "tanh_slope": "tanh slope",
    "state_swapped": "h and c swapped",
    "position_fed": "position as input",
    "gradient_carried": "stale gradient",
    "window_overrun": "window overrun",
    "softmax_unshifted": "unshifted softmax",
    "biases_drawn": "random biases",
    "gradients_summed": "summed gradients",
}
"""The name of each mistake, in the tables and in the headings of the page."""

SLOPES = ("sigmoid_slope", "tanh_slope")

QUANTITIES: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("loss", lambda row: row.loss_nats),
    ("largest |c|", lambda row: row.cell_max),
    ("gradient", lambda row: row.grad_norm),
    ("weights", lambda row: row.weight_norm),
)
"""In the order in which a step computes them."""

PANEL_WIDTH, PANEL_HEIGHT = 21, 3
LAST = 50
"""The final loss is the mean over this many last steps."""


@dataclass(frozen=True)
class Variant:
    """One program to train: its name in the tables, its mistakes, its precision."""

    title: str
    mistakes: Mistakes
    dtype: str = "float64"


@dataclass(frozen=True)
class Run:
    """What a variant did with one seed, up to the first step at which something was not finite."""

    rows: list[Row]
    broke_at: int | None  # that step
    first: str  # what was not finite there, the first by the order of computation


def alone() -> list[Variant]:
    """No mistake, and each by itself."""
    return [Variant("none", NONE)] + [Variant(TITLES[name], only(name)) for name in NAMES]


def with_summed() -> list[Variant]:
    """Summed gradients, and each other mistake together with them; the unshifted softmax in float32 too."""
    summed = only("gradients_summed")
    others = [name for name in NAMES if name != "gradients_summed"]
    unshifted = replace(summed, softmax_unshifted=True)
    return [
        Variant("no other", summed),
        *(Variant(TITLES[name], replace(summed, **{name: True})) for name in others),
        Variant("no other, in float32", summed, "float32"),
        Variant(f"{TITLES['softmax_unshifted']}, in float32", unshifted, "float32"),
    ]


def together() -> list[Variant]:
    """All nine, and all with one put right; then with both slopes put right."""
    slopes = replace(ALL, **dict.fromkeys(SLOPES, False))
    return [
        Variant("all nine", ALL),
        *(Variant(f"all but: {TITLES[name]}", replace(ALL, **{name: False})) for name in NAMES),
        Variant("all but both slopes", slopes),
        Variant("all but both slopes and the sum", replace(slopes, gradients_summed=False)),
    ]


# -- measure ------------------------------------------------------------------------------------------------------------


def measure(variant: Variant, ids: np.ndarray, V: int, steps: int, seed: int) -> Run:
    """Train until `steps`, or until one of the four quantities is not finite."""
    rows: list[Row] = []
    with np.errstate(all="ignore"):
        for row in train(ids, V, HIDDEN, SEQ, LR, steps, variant.mistakes, seed, variant.dtype):
            rows.append(row)
            for name, value in QUANTITIES:
                if not math.isfinite(value(row)):
                    return Run(rows, row.step, name)
    return Run(rows, None, "")


def measure_charlstm(text: str, steps: int, lr: float) -> str:
    """Run this project's own program at the same setting; a table row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        path.write_text(text, encoding="utf-8")
        words = (
            f"--hidden {HIDDEN} --layers 1 --batch 1 --seq {SEQ} --optimizer sgd --lr {lr:g} --clip 0 --steps {steps}"
        )
        quiet = ["--preview-every", "0", "--display", "json", "--checkpoints", folder]
        command = [sys.executable, "-m", "charlstm", "train", str(path), *words.split(), *quiet]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        finite = all(is_finite(saved) for saved in Path(folder).glob("*.npz"))
    back = [str(event["step"]) for event in told if event["event"] == "recovered"]
    losses = [event["loss_nats"] for event in told if event["event"] == "finished"]
    return (
        f"| `--lr {lr:g}` | {done.returncode} | {'at step ' + ', '.join(back) if back else 'never'} "
        f"| {losses[-1] if losses else math.nan:.2f} | {'yes' if finite else 'NO'} |"
    )


def is_finite(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as file:
        return all(np.isfinite(file[name]).all() for name in file.files if file[name].dtype.kind == "f")


# -- show ---------------------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Three digits, or all of them before the point, or a power of ten."""
    if value >= 1e5:
        return f"{value:.0e}".replace("e+", "e")
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def span(values: Sequence[float]) -> str:
    """The lowest and the highest of some numbers, or the one that both are; what is not finite is left out."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (number(min(finite)), number(max(finite))) if finite else ("–", "–")
    return low if low == high else f"{low}–{high}"


def row_of_table(title: str, runs: Sequence[Run], steps: int) -> str:
    """One Markdown row over all seeds: title, outcome, what broke first, loss, |c|, gradient, weights."""

    def largest(value: Callable[[Row], float]) -> str:
        return span([max((v for v in map(value, run.rows) if math.isfinite(v)), default=math.nan) for run in runs])

    broke = [run for run in runs if run.broke_at is not None]
    outcome = f"finite for {steps:,} steps"
    if broke:
        numbers = sorted({run.broke_at for run in broke if run.broke_at is not None})
        at = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,}–{numbers[-1]:,}"
        outcome = f"**NaN** at {at}" + (f" ({len(broke)} of {len(runs)} seeds)" if len(broke) < len(runs) else "")
    first = " or ".join(sorted({run.first for run in broke})) or "–"
    ends = [float(np.mean([row.loss_nats for row in run.rows[-LAST:] if math.isfinite(row.loss_nats)])) for run in runs]
    return (
        f"| {title} | {outcome} | {first} | {span(ends)} | " + " | ".join(largest(v) for _, v in QUANTITIES[1:]) + " |"
    )


def table(variants: Sequence[Variant], runs: dict[tuple[Variant, int], Run], steps: int, seeds: int, head: str) -> str:
    """A Markdown table of a group of variants."""
    lines = [f"| {head} | outcome | first | final loss | largest \\|c\\| | largest gradient | largest weights |"]
    lines.append("|---" * 7 + "|")
    lines += [row_of_table(v.title, [runs[v, seed] for seed in range(1, seeds + 1)], steps) for v in variants]
    return "\n".join(lines)


def panel(name: str, values: Sequence[float], logarithmic: bool) -> list[str]:
    """One quantity over a run: its name, its range, and its curve, `PANEL_WIDTH` wide."""
    finite = np.array([value for value in values if math.isfinite(value)])
    heights = np.log10(np.maximum(finite, 1e-12)) if logarithmic else finite
    columns = 2 * PANEL_WIDTH
    if len(heights) > columns:
        pick = np.max if logarithmic else np.mean
        points = np.array([pick(part) for part in np.array_split(heights, columns)])
    else:
        points = np.interp(np.linspace(0, 1, columns), np.linspace(0, 1, len(heights)), heights)
    rows = curve.draw(
        list(enumerate(points.tolist())), [], PANEL_WIDTH, PANEL_HEIGHT, points.min(), points.max(), columns - 1
    )
    limits = f"{number(finite.min())} … {number(finite.max())}"
    return [line.ljust(PANEL_WIDTH) for line in (name, limits, *rows)]


def curves(title: str, run: Run) -> str:
    """The four quantities of a run side by side."""
    until = f"NaN at step {run.broke_at:,}" if run.broke_at else f"finite for {run.rows[-1].step:,} steps"
    panels = [panel(name, [value(row) for row in run.rows], name != "loss") for name, value in QUANTITIES]
    lines = ["  ".join(parts).rstrip() for parts in zip(*panels, strict=True)]
    return "\n".join([f"{title}: {until}", *lines])


def last_steps(runs: Sequence[tuple[str, Run]], count: int = 8) -> str:
    """The four quantities in the last steps of some runs, as a Markdown table."""
    lines = [
        "| mistake | step | " + " | ".join(name.replace("|", "\\|") for name, _ in QUANTITIES) + " |",
        "|---" * 6 + "|",
    ]
    for title, run in runs:
        for row in run.rows[-count:]:
            values = [value(row) for _, value in QUANTITIES]
            cells = [number(value) if math.isfinite(value) else f"**{value}**" for value in values]
            lines.append(f"| {title} | {row.step:,} | " + " | ".join(cells) + " |")
            title = ""
    return "\n".join(lines)


def report(text: str, steps: int, seeds: int, jobs: int) -> str:
    """Measure everything and put it in Markdown."""
    alphabet = sorted(set(text))
    ids, V = np.array([alphabet.index(c) for c in text]), len(alphabet)
    shares = np.bincount(ids) / len(ids)
    groups = alone(), with_summed(), together()
    tasks = [(variant, seed) for group in groups for variant in group for seed in range(1, seeds + 1)]
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(measure, variant, ids, V, steps, seed) for variant, seed in tasks]
        runs = dict(zip(tasks, (future.result() for future in futures), strict=True))
    return "\n\n".join(
        [
            textwrap.fill(
                f"{len(text):,} characters of text, {V} of them distinct, windows of {SEQ}, {steps:,} steps. Ranges are over "
                f"seeds 1 to {seeds}. The uniform baseline is ln {V} = {math.log(V):.2f} nats per character, the unigram "
                f"baseline {-(shares @ np.log(shares)):.2f}. The final loss is the mean of the last {LAST} steps. The column "
                '"first" names the first quantity that was not finite. "NaN at N" gives the step.',
                PAGE_WIDTH,
            ),
            "**Each mistake on its own, gradients as a mean:**",
            table(groups[0], runs, steps, seeds, "mistake"),
            "**The same with gradients summed over the window:**",
            table(groups[1], runs, steps, seeds, "mistake beside the sum"),
            "**The last steps of the two that break on their own** (seed 1):",
            last_steps([(TITLES[name], runs[Variant(TITLES[name], only(name)), 1]) for name in SLOPES]),
            "**All of them, and all but one:**",
            table(groups[2], runs, steps, seeds, "mistakes"),
            "**`charlstm` itself**, same text and setting. A mean at rate 10 takes steps as long as a sum at 0.1:",
            "| rate | exit status | rolled back | final loss | all numbers on disk finite |\n|---|---|---|---|---|\n"
            + "\n".join(measure_charlstm(text, steps, lr) for lr in (LR, LR * SEQ)),
            textwrap.fill(
                "**Curves** (seed 1). The loss has a linear axis, the other three have logarithmic ones. Each curve runs "
                "from the first step to the last finite one. Above it are its lowest and highest value.",
                PAGE_WIDTH,
            ),
            "```text\n" + "\n\n".join(curves(v.title, runs[v, 1]) for v in [*groups[0], groups[2][0]]) + "\n```",
        ]
    )


def write(page: Path, measured: str) -> None:
    """Put what was measured between the two marks of the page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what each mistake of a hand-written LSTM does to training.")
    parser.add_argument("text", nargs="?", default="fables", help="a path, or the name of a text in corpora/")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument(
        "--chars", type=int, default=20_050, help="of the text; a short last window must come round often"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=blas.cores())
    parser.add_argument("--write", action="store_true", help="put the result into docs/nan.md")
    given = parser.parse_args()
    found = corpus.read(find([given.text]))
    text = "".join(found.vocabulary.characters[i] for i in found.ids[: given.chars])
    measured = report(text, given.steps, given.seeds, given.jobs)
    print(measured)
    if given.write:
        write(PAGE, measured)


if __name__ == "__main__":
    main()
