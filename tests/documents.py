"""What the pages show, made runnable: their blocks, and a folder in which every text, run and program that they name is there."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from charlstm.cli.app import app
from tests.conftest import ROOT, VERSES

PROGRAM: Any = typer.main.get_command(app)
PAGES = sorted(
    [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *(ROOT / "docs").glob("*.md")]
    + [ROOT / folder / "README.md" for folder in ("corpora", "checkpoints")]
)
SCRIPT = re.compile(r"python3? -m (tests\.\w+\.\w+)([^\n#`]*)")
"""A measurement of ours; it takes minutes or hours, so it is not run: its words are held against its own help."""
TOOLS = [
    "sh", "cat", "head", "tail", "cp", "mv", "rm", "mkdir", "ls", "touch", "date", "basename", "sleep", "wc", "tr", "cut", "grep", "sed", "sort",
    "tee", "flock", "timeout", "nohup", "nice", "make", "less", "env", "jq", "dirname",
]  # fmt: skip
"""What a block may call beside the program."""

STAND_IN = '''#!{python} -IS
"""In the place of a program that a page names: the real one in little time, or, for one that installs, nothing but its words checked."""
import os, pathlib, re, sys

name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
here = pathlib.Path(sys.argv[0]).parent
if name in ("python", "python3") and words[:1] == ["-c"]:
    os.execv(sys.executable, [sys.executable, *words])
if name in ("python", "python3") and words[:2] == ["-m", "charlstm"]:
    name, words = "charlstm", words[2:]
if name == "charlstm":
    def cut(option, most):
        for place, word in enumerate(words[:-1]):
            if word == option and not 0 < float(words[place + 1]) < float(most):
                words[place + 1] = most
    minutes = os.environ.get("STAND_IN_MINUTES", "0.004")
    cut("--minutes", minutes), cut("--epochs", "0.01"), cut("--steps", "20")
    if words[:1] == ["sample"]:
        cut("--length", "300")
    if words[:1] == ["train"] and not {{"--minutes", "--epochs", "--steps"}} & set(words):
        words += ["--minutes", minutes]
    os.environ["PYTHONPATH"] = {root!r}
    os.execv(sys.executable, [sys.executable, "-m", "charlstm", *words])
if name in ("python", "python3") and words[:2] == ["-m", "venv"]:
    programs = pathlib.Path(words[2], "bin")
    programs.mkdir(parents=True, exist_ok=True)
    for program in ("charlstm", "pip", "python", "pytest", "ruff", "mypy"):
        (programs / program).unlink(missing_ok=True)
        (programs / program).symlink_to(here.resolve() / "charlstm")
elif name in ("pip", "pipx", "uv") or words[:2] == ["-m", "pip"]:
    extras = re.findall(r"\\[([\\w,-]+)\\]", " ".join(words))
    known = set(re.findall(r"^(\\w+) = \\[", pathlib.Path({root!r}, "pyproject.toml").read_text(), re.M))
    sys.exit(None if "install" in words and all(set(e.split(",")) <= known for e in extras) else f"{{name}} {{words}}?")
elif name in ("mpirun", "srun"):
    os.execv(here / "charlstm", words[words.index("charlstm"):])
elif name == "git" and words[:1] == ["clone"]:
    pathlib.Path(words[-1].rsplit("/", 1)[-1].removesuffix(".git")).mkdir(exist_ok=True)
elif name == "curl":
    text = pathlib.Path({root!r}, "corpora", "fables.txt").read_text()[:20000]
    if "-o" in words:
        pathlib.Path(words[words.index("-o") + 1]).write_text(text)
    else:
        sys.stdout.write(text)
elif name in ("pytest", "ruff", "mypy") or words[:2] == ["-m", "pytest"]:
    pass  # what runs this, or beside it
else:
    sys.exit(f"{{name}} {{' '.join(words)}}: tests/documents.py has no stand-in for this; write one there, or take it out of the page")
'''


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page: those in fences, and indented lines that begin with one of our commands."""
    found, name = [], str(page.relative_to(ROOT))
    language, lines, start = "", list[str](), 0
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence := re.match(r"\s*```(\w*)", line):
            if inside:
                found.append(Block(name, start, language, "\n".join(lines) + "\n"))
            inside, language, lines, start = not inside, fence[1], [], number + 1
        elif inside:
            lines.append(line)
        elif re.match(r" {4,}(\$ )?(\.venv/bin/)?(charlstm|python3?|pip) ", line):
            found.append(Block(name, number, "sh", line.strip().removeprefix("$ ") + "\n"))
    assert not inside, f"{name}: a fence is never closed"
    return found


def shell(block: Block) -> str:
    """What of a block a shell runs: all of it, or of a dialogue the lines behind a prompt; without our measurements."""
    code = block.code
    if block.language == "console":
        code = "\n".join(line.removeprefix("$ ") for line in code.splitlines() if line.startswith("$ ")) + "\n"
    code = "\n".join(line for line in code.replace("\\\n", " ").splitlines() if not SCRIPT.search(line))
    if importlib.util.find_spec("matplotlib") is None:  # an extra; that the option is there is looked at elsewhere
        code = "\n".join(line for line in code.splitlines() if "--plot" not in line)
    return code + "\n" if code.strip() else ""


def calls(code: str) -> list[list[str]]:
    """The words of every call of the program in a piece of shell."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\|?|;|\$\(|\)|2?>>?|<|\bdo\b", line.split(" #")[0]):
            if match := re.search(r"(?:^|[\s/])charlstm ((?:train|resume|sample|info|eval)\b.*)", part):
                found.append(shlex.split(match[1]))
    return found


@functools.cache
def template(folder: Path) -> Path:
    """A small run that knows all characters of all pages' commands."""
    text = folder / "verses.txt"
    text.write_text(verses(), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "charlstm", "train", text, "--steps", "20", "--hidden", "16", "--preview-every", "0"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "checkpoints"


def verses() -> str:
    """A text of some thousand characters, with every character that the pages use."""
    everything = "".join(sorted(set("".join(page.read_text(encoding="utf-8") for page in PAGES)) - {"\r"}))
    return VERSES * 30 + everything + "\n" + VERSES * 10


def furnish(folder: Path, runs: Path, code: str) -> dict[str, str]:
    """Put in a folder what a piece of shell speaks of; returns the environment to run it in.

    Texts: every word that ends in .txt, and what `train` and `eval` are given. Runs: what other commands are given. Programs: this one,
    and stand-ins; beside them only `TOOLS`, so that a block with anything else in it fails.
    """
    texts = set(re.findall(r"[\w./*-]+\.txt\b", code))
    for words in calls(code):
        command = PROGRAM.commands[words[0]]
        with command.make_context(words[0], words[1:], resilient_parsing=True) as context:
            given = context.params
        texts |= {name for name in given.get("corpora") or () if "$" not in name}
        for name in (given.get("run"), given.get("init_from")):
            if name and name != "fables" and "$" not in name and not (folder / name).exists():
                _copy_run(folder, runs, name)
    for name in texts - {"-", "fables"}:
        path = Path(name.replace("*", "some"))
        if path.suffix != ".txt":
            path = path / "one.txt" if name.endswith("/") else Path("corpora", name + ".txt")
        if not path.is_absolute() and not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(verses(), encoding="utf-8")
    return environment(folder)


def _copy_run(folder: Path, runs: Path, name: str) -> None:
    target = (
        folder / "checkpoints" / name if "/" not in name else folder / name.removesuffix(".npz").removesuffix(".best")
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".npz", ".best.npz"):
        shutil.copy(runs / f"verses{ending}", f"{target}{ending}")


def environment(folder: Path) -> dict[str, str]:
    """An environment with the stand-ins and few other programs in its PATH."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    first = programs / "charlstm"
    first.write_text(STAND_IN.format(python=sys.executable, root=str(ROOT)))
    first.chmod(0o755)
    for name in ("python", "python3", "pip", "pipx", "uv", "git", "curl", "pytest", "mpirun", "srun"):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(first)
    for name in TOOLS:
        if (real := shutil.which(name)) and not (programs / name).exists():
            (programs / name).symlink_to(real)
    return {
        "PATH": str(programs), "HOME": str(folder), "LANG": os.environ.get("LANG", "C.UTF-8"), "TERM": "dumb",
        "CHARLSTM_IF_EXISTS": "overwrite", "CHARLSTM_PREVIEW_EVERY": "0",
    }  # fmt: skip


def run(words: Sequence[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for it; it has nothing to read."""
    return subprocess.run(
        words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )  # fmt: skip
