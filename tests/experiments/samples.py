"""What the base adds, as a reader sees it: samples of small texts trained from random weights and from the base, side by side.

    python -m tests.experiments.samples TEXT … --words /usr/share/dict/words [--folder RUNS]

Each text is trained twice by the program's own default, with `--init-from none` and without. Then each run writes 20,000 characters with the same
seed. stdout has the share of words in them that are in the word list or in the text itself, the share that was copied (`--novelty`), and the
beginning of each sample. Debian's package wamerican has a word list.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LENGTH, SHOWN, TEMPERATURE = 20_000, 500, "0.8"


def program(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def words_in(text: str) -> list[str]:
    """The words of a text in small letters, of two letters at least, without what is no word (addresses, names of users, tags)."""
    text = re.sub(r"https?://\S*|[@#]\w+", " ", text.lower().replace("’", "'"))
    return [word.strip("'") for word in re.findall(r"[a-z][a-z']+", text)]


def is_word(word: str, known: set[str]) -> bool:
    return word in known or word.removesuffix("'s") in known


def sample(text: Path, name: str, folder: str, init_from: str) -> dict[str, Any]:
    program(
        "train", str(text), "--name", name, "--checkpoints", folder, "--init-from", init_from, "--if-exists", "resume",
        "--preview-every", "0", "--display", "none",
    )  # fmt: skip
    told = program(
        "sample", name, "--checkpoints", folder, "--temp", TEMPERATURE, "--seed", "1", "--length", str(LENGTH), "--json", "--novelty"
    )  # fmt: skip
    return dict(json.loads(told))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.samples", description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--words", type=Path, default=Path("/usr/share/dict/words"))
    parser.add_argument("--folder", help="keep the runs here")
    options = parser.parse_args()
    known = {word.strip().lower() for word in options.words.read_text(encoding="utf-8").splitlines()}
    shown = []
    print(
        "| text | weights begin | English words | not in the text either | copied |\n|---|---|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="charlstm-") as temporary:
        for text in options.texts:
            own = set(words_in(text.read_text(encoding="utf-8")))
            for begin, init_from in (("random", "none"), ("base", "auto")):
                told = sample(text, f"{text.stem}-{begin}", options.folder or temporary, init_from)
                found = words_in(told["text"])
                english = sum(is_word(word, known) for word in found) / len(found)
                neither = sum(not is_word(word, known | own) for word in found) / len(found)
                print(
                    f"| {text.name} | {begin} | {english:.1%} | {neither:.1%} | {told['novelty']['copied_share']:.1%} |",
                    flush=True,
                )
                shown.append(f"{text.name}, {begin}:\n\n{told['text'][:SHOWN]}\n")
    print("", *shown, sep="\n")


if __name__ == "__main__":
    main()
