"""Write a stand-in for the Penn Treebank characters, which can't be shipped: descriptions of Debian's packages in the same form.

    python -m tests.experiments.descriptions FOLDER

It downloads the English descriptions of Debian 12 and writes ptb-train.txt, ptb-valid.txt and ptb-test.txt: a sentence per line, small
letters, N for numbers, no punctuation but ' & $ / and the like, and <unk> for words that are not among the 10,000 most frequent.
"""

from __future__ import annotations

import argparse
import collections
import lzma
import random
import re
import urllib.request
from pathlib import Path

SOURCE = "http://deb.debian.org/debian/dists/bookworm/main/i18n/Translation-en.xz"
WORDS, SEED = 10_000, 1
PARTS = {"train": 5_100_000, "valid": 400_000, "test": 450_000}


def sentences(descriptions: str) -> list[str]:
    """Every sentence of the descriptions once, without lists and tables, in random order."""
    found: dict[str, str] = {}  # by their beginnings
    for body in re.findall(r"^Description-en: .*\n((?: .*\n?)*)", descriptions, re.MULTILINE):
        for paragraph in re.sub(r"^ ?", "", body, flags=re.MULTILINE).split("\n.\n"):
            if re.search(r"^\s*[*-]|^  ", paragraph, re.MULTILINE):
                continue
            for sentence in re.split(r"(?<=[.!?]) +", " ".join(paragraph.split())):
                if 60 < len(sentence) < 300 and sentence.isascii() and "This package" not in sentence:
                    found.setdefault(sentence[:60], sentence)
    result = list(found.values())
    random.Random(SEED).shuffle(result)
    return result


def normalize(found: list[str]) -> str:
    """The sentences in the form of the Penn Treebank characters."""
    pattern = r"[A-Za-z]+(?:'s)?|\d[\d.,]*|[^\sA-Za-z\d.,!?;:\"()]"
    lines = [["N" if w[0].isdigit() else w.lower() for w in re.findall(pattern, sentence)] for sentence in found]
    count = collections.Counter(word for line in lines for word in line)
    known = {word for word, _ in count.most_common(WORDS)}
    return "".join(f" {' '.join(w if w in known else '<unk>' for w in line)} \n" for line in lines)


def main() -> None:
    """Download the descriptions and write the three files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.experiments.descriptions", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with urllib.request.urlopen(SOURCE) as response:
        text = normalize(sentences(lzma.decompress(response.read()).decode(errors="ignore")))
    start = 0
    for name, chars in PARTS.items():
        (folder / f"ptb-{name}.txt").write_text(text[start : start + chars], encoding="utf-8")
        print(f"ptb-{name}.txt: {len(text[start : start + chars]):,} characters")
        start += chars


if __name__ == "__main__":
    main()
