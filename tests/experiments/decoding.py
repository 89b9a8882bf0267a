"""How text reads at several temperatures and truncations: where the defaults of `sample` come from.

    python -m tests.experiments.decoding tweets.npz tweets.txt
    python -m tests.experiments.decoding tweets.npz tweets.txt --settings "0.7" "0.8 min_p=0.05" "1.0 top_p=0.9"

At each setting it samples `--texts` texts of 500 characters and prints a row of a table:

- words: the share of words that are words of the text, including its held-out tail
- variety: the number of distinct words among the first 5,000, as a share of that number in the text
- copied: the share of 20-character substrings that occur in the training text
- distinct: the share of whole lines of at least 20 characters that occur once
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from charlstm import api
from charlstm.settings import SampleConfig

WORDS = 5000
GRID = [f"{temp} {rest}" for rest in ("", "min_p=0.05", "top_p=0.9") for temp in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]


def words(texts: Sequence[str]) -> list[str]:
    """Return the words of some texts in lower case; the last of each may be cut off, and is left out."""
    return [word for text in texts for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text.lower())[:-1]]


def variety(found: Sequence[str]) -> int:
    """Return the number of distinct words among the first few thousand."""
    return len(set(found[:WORDS]))


def row(model: api.Model, settings: SampleConfig, count: int, text: str) -> str:
    """Sample at a setting; return the cells of a row."""
    texts = [""] * count
    for pieces in model.sample_many(range(1, count + 1), settings):
        texts = [a + b for a, b in zip(texts, pieces, strict=True)]
    known, written = Counter(words([text])), words(texts)
    lines = Counter(line for t in texts for line in t.split("\n")[:-1] if len(line) >= 20)
    copied = model.training_text().compare(texts)
    return (
        f"{sum(word in known for word in written) / len(written):.1%} | "
        f"{variety(written) / max(1, variety(words([text]))):.0%} | "
        f"{sum(c.copied for c in copied) / sum(c.pieces for c in copied):.1%} | "
        f"{sum(n == 1 for n in lines.values()) / max(1, len(lines)):.1%}"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.decoding", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--settings", nargs="+", default=GRID, help="a temperature, and settings of `SampleConfig`")
    parser.add_argument("--texts", type=int, default=64)
    options = parser.parse_args()
    model, text = api.load(options.run), options.text.read_text(encoding="utf-8")
    print(f"| {options.run.name}: setting | words | variety | copied | distinct |\n|---|---|---|---|---|", flush=True)
    for setting in options.settings:
        temp, *rest = setting.split()
        more = {key: float(value) for key, value in (item.split("=") for item in rest)}
        settings = SampleConfig(temperature=float(temp), length=500, **more)  # type: ignore[arg-type]
        print(f"| {setting.strip()} | {row(model, settings, options.texts, text)} |", flush=True)


if __name__ == "__main__":
    main()
