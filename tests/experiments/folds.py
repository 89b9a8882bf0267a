"""How well small texts are learned: the mean over five runs, each of which holds out another contiguous tenth of the text.

    python -m tests.experiments.folds TEXT … --settings "" "--init-from none" [--minutes 1] [--folds 1 3 5 7 9] [--log FILE]

One tenth of a small text says little: the next tenth may be easier by a tenth of a nat. Each run is a `charlstm train` of its own, one after the
other, on a copy of the text whose held-out tenth is moved to the end. Beside the mean stands that of the best n-gram on the same tenths.
The table goes to stdout, a row as soon as it is known, and with ``--log`` each run is appended to a file as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean

from tests.experiments.learn import run

TENTHS = (1, 3, 5, 7, 9)


def held_out_last(text: str, tenth: int) -> str:
    """The text with one of its tenths (0 to 9) moved to its end."""
    size = len(text) // 10
    start = tenth * size
    return text[:start] + text[start + size :] + text[start : start + size]


def main() -> None:
    """Run all settings on all texts, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.folds", description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--settings", nargs="+", default=[""], help="options of `charlstm train`, one string a setting")
    parser.add_argument("--minutes", help="time for each run; the program's own default if not given")
    parser.add_argument("--steps", help="or this many steps")
    parser.add_argument("--folds", nargs="+", type=int, default=list(TENTHS), help="the tenths to hold out, 0 to 9")
    parser.add_argument("--log", type=Path, help="append every run to this file, as JSON")
    options = parser.parse_args()
    budget = ["--minutes", options.minutes] if options.minutes else ["--steps", options.steps] if options.steps else []
    print("| text | setting | held-out loss | best n-gram | difference | each tenth | epochs | seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for path in options.texts:
        text = path.read_text(encoding="utf-8")
        for setting in options.settings:
            runs = []
            for tenth in options.folds:
                with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
                    copy = Path(folder, path.name)
                    copy.write_text(held_out_last(text, tenth), encoding="utf-8")
                    runs.append(run(copy, budget, setting, seed=1) | {"tenth": tenth})
                if options.log:
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(json.dumps(runs[-1]) + "\n")
            each = " ".join(f"{r['best_val_nats']:.3f}" for r in runs)
            nats, ngram = mean(r["best_val_nats"] for r in runs), mean(r["ngram_nats"] for r in runs)
            print(
                f"| {path.name}, {len(text):,} characters | `{setting or 'defaults'}` | **{nats:.3f}** | {ngram:.3f} | {nats - ngram:+.3f} | "
                f"{each} | {mean(r['epoch'] for r in runs):.0f} | "
                f"{mean(r['elapsed_s'] for r in runs):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
