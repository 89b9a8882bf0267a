"""How well settings learn a text in a given time: where the program's defaults come from.

    python -m tests.experiments.learn TEXT --minutes 2 "--hidden 256" "--hidden 512 --dropout 0.2" …
    python -m tests.experiments.learn TEXT --minutes 5 --seeds 1 2 3 ""

Every setting is a `charlstm train` of its own, one after the other, because two at once would have half a machine each. With several
seeds the median counts. "Nats" is the held-out loss by the tail protocol, "windowed" by that of windows of 256 characters. The table goes
to stdout, and with ``--log FILE`` each run is appended to it as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

CONTEXT, OTHER_CONTEXTS = 256, (64, 1024)
"""The windows of the table, and others that the log has too."""


def output_of(command: list[str]) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode or not done.stdout:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def run(text: Path, budget: list[str], setting: str, seed: int) -> dict[str, Any]:
    """Train once; returns what there is to know about it."""
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
        command = [
            sys.executable, "-m", "charlstm", "train", str(text), *budget, *setting.split(), "--seed", str(seed), "--name", "x",
            "--preview-every", "0", "--display", "json", "--checkpoints", folder,
        ]  # fmt: skip
        events = [json.loads(line) for line in output_of(command).splitlines()]
        evaluation = [sys.executable, "-m", "charlstm", "eval", "x", "--json", "--checkpoints", folder]
        windowed = {
            context: json.loads(output_of([*evaluation, "--context", str(context)]))["nats_per_char"]
            for context in (CONTEXT, *OTHER_CONTEXTS)
        }
    started, finished = events[0], events[-1]
    evaluated = [e for e in events if e["event"] == "evaluated"]
    return {
        "text": text.name,
        "budget": " ".join(budget),
        "setting": setting,
        "seed": seed,
        "best_val_nats": finished["best_val_nats"],
        "windowed_nats": windowed,
        "last_val_nats": evaluated[-1]["val_nats"] if evaluated else None,
        "loss_nats": finished["loss_nats"],
        "ngram_nats": finished["ngram_nats"],
        "parameters": started["parameters"],
        "hidden": started["hidden"],
        "layers": started["layers"],
        "batch": started["batch"],
        "seq": started["seq"],
        "steps": finished["step"],
        "epoch": finished["epoch"],
        "elapsed_s": finished["elapsed_s"],
        "chars_per_s": finished["step"] * started["batch"] * started["seq"] / finished["elapsed_s"],
        "cell_max": max((e["cell_max"] for e in events if e["event"] == "progress"), default=None),
    }


def main() -> None:
    """Run all settings with all seeds, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.learn", description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("settings", nargs="*", help="options of `charlstm train`, one string a setting")
    parser.add_argument("--minutes", help="time for each run")
    parser.add_argument("--epochs", help="or so many passes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--log", type=Path, help="append every run to this file, as JSON")
    options = parser.parse_intermixed_args()
    budget = ["--epochs", options.epochs] if options.epochs else ["--minutes", options.minutes or "1"]

    print(
        f"| {' '.join(budget)} on {options.text.name} | nats | of each seed | windowed | model | passes | thousand chars/s | largest abs. c |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for setting in options.settings or [""]:
        runs = [run(options.text, budget, setting, seed) for seed in options.seeds]
        if options.log:
            with options.log.open("a", encoding="utf-8") as log:
                log.writelines(json.dumps(r) + "\n" for r in runs)
        nats = [r["best_val_nats"] for r in runs]
        each = " ".join(f"{n:.3f}" for n in nats)
        models = " ".join(dict.fromkeys(f"{r['layers']}x{r['hidden']}" for r in runs))
        print(
            f"| `{setting or 'defaults'}` | **{median(nats):.3f}** | {each} | {median(r['windowed_nats'][CONTEXT] for r in runs):.3f} | {models} | "
            f"{median(r['epoch'] for r in runs):.1f} | {median(r['chars_per_s'] for r in runs) / 1000:.1f} | "
            f"{max(r['cell_max'] for r in runs):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
