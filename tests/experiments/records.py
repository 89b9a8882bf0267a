"""The records: for each figure its text, command and protocol, and what others have published; the tables of README and docs.

    python -m tests.experiments.records                                    # print the tables
    python -m tests.experiments.records --write                            # put them into README.md and docs/quality.md
    python -m tests.experiments.records --run shakespeare-5 --texts DIR --seeds 1 2 3

The last measures a record again, with the texts in a folder, and prints the loss of each seed and the median. Write that into `RECORDS`
below, then ``--write``. A test fails when a page does not have the tables that this prints.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
NANOGPT = "nanoGPT 1.4697; at a rate of 2e-3 1.4603 (its GPU recipe)"
KARPATHY = "20-gram 1.195, best LSTM **1.077** (Karpathy et al. 2015)"
PTB = "AWD-LSTM 1.175 bits, Mogrifier LSTM **1.120** bits"


@dataclass(frozen=True)
class Record:
    """A figure that a command gives on a text."""

    key: str
    text: str  # what the tables call it
    budget: str
    train: str  # the words after `charlstm train`, without --seed and --name
    evaluate: str  # the words after `charlstm eval RUN`; the protocol's
    protocol: str
    nats: float | None  # None: not measured here
    how: str = ""  # "3 seeds", whose median it is, if it is not one run
    ngram: str = ""  # loss of the best n-gram
    unigram: str = ""
    uniform: str = ""
    epochs: str = ""
    chosen: str = ""  # settings that charlstm chose
    published: str = ""  # by others, in the same protocol or with theirs named

    @property
    def commands(self) -> tuple[str, str]:
        """The two commands that give the figure: train, and evaluate what is held out."""
        name = Path(shlex.split(self.train)[0]).stem
        return f"charlstm train {self.train}", f"charlstm eval {name} {self.evaluate}".rstrip()

    @property
    def loss(self) -> str:
        """The figure, as the tables show it."""
        return "–" if self.nats is None else f"**{self.nats:.3f}**" + (f" ({self.how})" if self.how else "")


SHAKESPEARE, TRAIN = "Tiny Shakespeare", "tinyshakespeare.txt --minutes"
WAR_AND_PEACE = "wp-train.txt --val-file wp-valid.txt --unknown skip --init-from none --minutes"
PENN = "ptb-train.txt --val-file ptb-valid.txt --minutes"
THREE, SCRATCH = "3 seeds", "--init-from none"
RECORDS = (
    Record("shakespeare-0.67", f"{SHAKESPEARE}, 1.1 M characters", "0.67", f"{TRAIN} 0.67", "", "tail", 1.394, THREE, "1.558", "3.35", "4.17", "2.5", "base, `--dropout 0`"),
    Record("shakespeare-0.67-none", f"{SHAKESPEARE}, random weights", "0.67", f"{TRAIN} 0.67 {SCRATCH}", "", "tail", 1.464, THREE, "1.558", "", "", "5.1", "1x256, `--dropout 0.15`"),
    Record("shakespeare-5", SHAKESPEARE, "5", f"{TRAIN} 5", "", "tail", 1.364, "", "1.558", "", "", "11", "1x512 from the base, `--dropout 0.3`"),
    Record("shakespeare-5-none", f"{SHAKESPEARE}, random weights", "5", f"{TRAIN} 5 {SCRATCH}", "", "tail", 1.401, THREE, "1.558", "", "", "11", "2x320, `--dropout 0.2`"),
    Record("shakespeare-5-windows", f"{SHAKESPEARE}, random weights", "5", f"{TRAIN} 5 {SCRATCH}", "--context 256", "windowed-256", 1.420, THREE, published=NANOGPT),
    Record("shakespeare-20", f"{SHAKESPEARE}, random weights", "20", f"{TRAIN} 20 {SCRATCH}", "", "tail", 1.397, "", "1.558", "", "", "25", "2x320, `--dropout 0.2`"),
    Record("shakespeare-20-windows", f"{SHAKESPEARE}, random weights", "20", f"{TRAIN} 20 {SCRATCH}", "--context 256", "windowed-256", 1.418, published=NANOGPT),
    Record("tweets-5", "tweets, 2.2 M characters, random weights", "5", f"tweets.txt --minutes 5 {SCRATCH}", "", "tail", 1.354, "", "1.485", "3.42", "5.05", "5.2", "2x320, `--dropout 0.15`"),
    Record("war-and-peace-20", "War and Peace, 3.2 M, random weights", "20", f"{WAR_AND_PEACE} 20", "wp-test.txt --unknown skip", "tail (test tenth)", 1.089, "", "1.356", "", "4.41", "7.5", "2x512, `--dropout 0.15`", KARPATHY),
    Record("tang-3", "Tang poems, 0.9 M characters, 5,387 distinct", "3", "tangpoetry.txt --minutes 3", "", "tail", 4.380, "", "4.985", "6.23", "8.59", "3.9", "`--hidden 256`"),
    Record("penn-15", "Penn Treebank characters", "15", f"{PENN} 15", "ptb-test.txt", "tail (test part)", None, published=PTB),
    Record("penn-15-adapt", "Penn Treebank characters", "15", f"{PENN} 15", "ptb-test.txt --adapt", "adapted (test part)", None, published="Mogrifier LSTM **1.083** bits"),
)  # fmt: skip


def table(*rows: tuple[str, ...]) -> str:
    """Rows as Markdown, the first being the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]).replace("|  |", "| |").replace("|  |", "| |")


def tables() -> dict[str, str]:
    """The tables, by the names of their places in the pages."""
    measured = [r for r in RECORDS if r.ngram]
    shown = [r for r in measured if r.uniform or SCRATCH not in r.train]  # of each text one at least
    return {
        "what to expect": table(
            ("text", "minutes", "held-out loss (tail)", "best n-gram", "unigram", "uniform"),
            *((r.text, r.budget, r.loss, r.ngram, r.unigram, r.uniform) for r in shown),
        ),
        "defaults": table(
            ("text", "minutes", "protocol", "held-out loss", "best n-gram", "epochs", "chosen settings"),
            *((r.text, r.budget, r.protocol, r.loss, r.ngram, r.epochs, r.chosen) for r in measured),
        ),
        "published": table(
            ("text, minutes", "protocol", "charlstm", "published"),
            *(
                (f"{r.text.partition(',')[0]}, {r.budget}", r.protocol, r.loss, r.published)
                for r in RECORDS
                if r.published
            ),
        ),
        "commands": "```sh\n" + "\n".join(dict.fromkeys(c for r in RECORDS for c in r.commands)) + "\n```",
    }


PAGES = {"README.md": ("what to expect",), "docs/quality.md": ("defaults", "published", "commands")}


def filled(page: str, name: str) -> str:
    """A page with one of its tables, which ends at the next empty line, replaced by the current one."""
    before, found, rest = page.partition(f"<!-- records: {name} -->\n")
    _, end, after = rest.partition("\n\n")
    if not found or not end:
        raise SystemExit(
            f"the page has no place for the table {name!r}: write <!-- records: {name} -->, a line and an empty line"
        )
    return before + found + tables()[name] + end + after


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    made = {}
    for name, places in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for place in places:
            text = filled(text, place)
        made[ROOT / name] = text
    return made


def measure(record: Record, texts: Path, seed: int) -> float:
    """Train and evaluate once; returns nats per character."""
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
        for path in texts.iterdir():
            Path(folder, path.name).symlink_to(path.resolve())
        train, evaluate = ([sys.executable, "-m", *shlex.split(command)] for command in record.commands)
        for command in ([*train, "--seed", str(seed), "--display", "none"], [*evaluate, "--json"]):
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
            )
            if done.returncode:
                raise SystemExit(f"{shlex.join(command)} ended with status {done.returncode}:\n{done.stderr}")
    return float(json.loads(done.stdout)["nats_per_char"])


def main() -> None:
    """Print the tables, write them, or measure a record."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.records", description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write README.md and docs/quality.md")
    parser.add_argument("--run", choices=[r.key for r in RECORDS], help="measure this record")
    parser.add_argument("--texts", type=Path, default=Path(), help="the folder of its texts")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    options = parser.parse_args()
    if options.run:
        record = next(r for r in RECORDS if r.key == options.run)
        found = []
        for seed in options.seeds:
            found.append(measure(record, options.texts, seed))
            print(f"{record.key}, seed {seed}: {found[-1]:.4f} nats", flush=True)
        print(
            f"{record.key} ({record.protocol}): median {median(found):.4f} nats, {median(found) / 0.693147:.4f} bits; written: {record.loss}"
        )
    elif options.write:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
    else:
        print("\n\n".join(tables().values()))


if __name__ == "__main__":
    main()
