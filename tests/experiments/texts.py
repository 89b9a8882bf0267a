"""Texts that nobody would write, in every encoding: is each learned or refused in one sentence?

    python -m tests.experiments.texts [--minutes 10] [--files N] [--seed 1]

Bytes at random, and good texts in all of Python's encodings that were cut, mixed, mutated and marked wrongly, under odd names, with an `--encoding`
that is right, wrong, odd or missing. `charlstm train` takes a few steps on each; what it learned is sampled. It must end with status 0 or 2, say one
sentence where it is 2, compute for less than 10 s, and never show a traceback. One in a hundred runs as a process of its own, the others in this one.
"""

from __future__ import annotations

import argparse
import contextlib
import encodings.aliases
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from charlstm import blas

blas.prepare()

from tests.experiments.hostile import command  # noqa: E402

TRAIN = [
    "--steps", "3", "--hidden", "8", "--batch", "4", "--seq", "8", "--preview-every", "0", "--if-exists", "overwrite", "--threads", "1",
]  # fmt: skip
SLOW_S, OWN_PROCESS = 10.0, 100
ENCODINGS = sorted(
    {*encodings.aliases.aliases.values(), "utf_8_sig", "idna", "punycode", "unicode_escape", "undefined"}
)
ODD_ENCODINGS = [
    "",
    " ",
    "klingon",
    "utf-8\0",
    "UTF8",
    "x" * 300,
    "../utf-8",
    "utf-16-le",
    "é",
    "utf_8\n",
    "-1",
    "rot13",
    "base64",
    "\udc80",
]
ODD_NAMES = [
    "text.txt", " ", "é漢\U0001f600.txt", "a b.txt", "-n.txt", "[x].txt", "*.txt", "a.best.txt", ".hidden", "no ending", "a.npz", "x" * 200 + ".txt",
    "new\nline.txt", "q'uote\".txt", "\udcff.txt", "a.b.c.", "CON.txt", "~.txt", "$HOME.txt",
]  # fmt: skip
ALPHABETS = [
    "the cat sat on a mat.\n", "naïve café – “yes” €\n", "漢字かな交じり文。\n", "e\u0301a\u0328o\u0308 \n", "\U0001f469\u200d\U0001f467\ufe0f\U0001f3fd\n",
    "\0\x01\x02\x1b[\x7f\x9b\n", "\r\n\r\n\n\r\x0b\x0c\x1c\x85\u2028\u2029", "\ufeff\ufffe\uffff\U0010ffff\u202e\u2066", "ab", "שלום عربي\n",
]  # fmt: skip


def a_text(rng: random.Random) -> str:
    """Characters of one or several alphabets; of any length from none to some thousands."""
    alphabet = "".join(rng.sample(ALPHABETS, rng.randint(1, 3)))
    if rng.random() < 0.05:
        alphabet = "".join(chr(c) for c in range(0x20, 0x3000) if not 0xD800 <= c <= 0xDFFF)
    length = rng.choice([0, 1, 2, 3, 10, 200, 200, 3000])
    return "".join(rng.choices(alphabet, k=length))


def a_file(rng: random.Random) -> tuple[bytes, str]:
    """Bytes, and the encoding that they are in, as far as they are in one."""
    if rng.random() < 0.15:
        return rng.randbytes(rng.choice([0, 1, 2, 3, 7, 100, 5000])), "utf-8"
    encoding = rng.choice(ENCODINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = a_text(rng).encode(encoding, rng.choice(["strict", "replace", "ignore"]))
    except (LookupError, ValueError):  # what is no text encoding, or can't be ours
        encoding, data = "utf-8", a_text(rng).encode()
    return (mutated(data, rng) if rng.random() < 0.5 else data), encoding


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, repeated, joined with those of another encoding, or marked."""
    raw, at = bytearray(data), rng.randint(0, len(data))
    match rng.randint(0, 6):
        case 0:
            for _ in range(rng.randint(1, 20)):
                if raw:
                    raw[rng.randrange(len(raw))] = rng.randrange(256)
        case 1:
            del raw[at:]
        case 2:
            raw[at:at] = raw[at : at + 50] * rng.randint(1, 100)
        case 3:
            raw += a_text(rng).encode(rng.choice(["utf-8", "utf-16", "cp1252", "utf-32-be", "gb18030"]), "replace")
        case 4:
            raw[:0] = rng.choice(
                [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"+/v8", b"PK\x03\x04"]
            )
        case 5:
            del raw[at : at + rng.randint(1, 3)]
        case 6:
            raw[at:at] = rng.choice(
                [b"\0", b"\r", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\\ud800", b"\x1a"]
            )
    return bytes(raw)


def own_process(words: list[str]) -> tuple[int, str]:
    """Run the program as a process; its status and what it complained of."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )  # fmt: skip
    return done.returncode, done.stderr.decode(errors="replace")


def computed_s() -> float:
    """How long this process and those that it waited for have computed, whatever else goes on on the machine."""
    return sum(os.times()[:4])


def one(rng: random.Random, folder: Path, *, alone: bool) -> tuple[str, str]:
    """Train on one such text, and sample; returns what came of it, and what broke the promise, if anything did."""
    data, right = a_file(rng)
    path = folder / rng.choice(ODD_NAMES)
    try:
        path.write_bytes(data)
    except (OSError, ValueError):
        path = folder / "text.txt"
        path.write_bytes(data)
    wanted = rng.choice([None, right, right, rng.choice(ENCODINGS), rng.choice(ODD_ENCODINGS)])
    words = ["train", str(path), *TRAIN] + (["--encoding", wanted] if wanted is not None else [])
    if alone and any("\0" in word for word in words):
        return "left out", ""
    before = computed_s()
    try:
        status, complaint = own_process(words) if alone else command(words)
        if status == 0:
            runs = sorted(folder.glob("checkpoints/*.npz"))
            sampled, told = command(["sample", str(runs[0]), "--length", "20", "--seed", "1"])
            if sampled:
                return "", f"sample ended with {sampled}: {told}"
    except BaseException:
        return "", traceback.format_exc()
    finally:
        path.unlink(missing_ok=True)
        for left in folder.glob("checkpoints/*"):
            left.unlink()
        with contextlib.suppress(OSError):
            (folder / "checkpoints").rmdir()
    seconds = computed_s() - before
    sentences = [line for line in complaint.splitlines() if line.startswith("charlstm: ")]
    if status not in (0, 2) or "Traceback" in complaint or seconds > SLOW_S or len(sentences) != (status == 2):
        return (
            "",
            f"status {status} after {seconds:.1f} s: {words[1:2] + words[-2:]!r} {data[:60]!r}: {complaint[-600:]}",
        )
    return f"status {status}", ""


def main(argv: list[str] | None = None) -> None:
    """Try one after the other, count, and end with status 1 if any broke the promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.texts")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    outcomes, broken, count, slowest = Counter[str](), [], 0, 0.0
    end, before = time.monotonic() + 60 * options.minutes, Path.cwd()
    with tempfile.TemporaryDirectory(prefix="charlstm-") as name:
        os.chdir(name)
        try:
            while time.monotonic() < end and count < options.files:
                rng = random.Random(f"{options.seed}/{count}")
                began = computed_s()
                what, failure = one(rng, Path(name), alone=count % OWN_PROCESS == OWN_PROCESS - 1)
                slowest = max(slowest, computed_s() - began)
                outcomes[what] += what != ""
                if failure:
                    broken.append((count, failure))
                    print(f"text {count}: {failure}", file=sys.stderr, flush=True)
                count += 1
        finally:
            os.chdir(before)
    told = ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items()) if n)
    print(f"{count} texts: {told}; the slowest computed for {slowest:.1f} s; {len(broken)} broke the promise")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
