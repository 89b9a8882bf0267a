"""Names that could drive a terminal: of texts, runs, folders, options, and those in a file from elsewhere."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm.cli.app import main
from charlstm.storage import checkpoint
from tests.conftest import SMALL, VERSES, Result

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names that it does not allow")

EVIL = "n\x1b]0;title\x07\x1b[5m\u202e\x9b7m\u2066\nFORGED\tx"
"""Sets the title, rings, blinks, turns the text around, and begins a line of its own."""
TRACES = ("\x1b]", "\x07", "\x1b[5m", "\u202e", "\x9b", "\u2066", "\nFORGED", "\rFORGED")
SHOWN = "␛]0;title␇"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a hostile name in a folder of a hostile name, and a run whose text has a hostile name."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / f"{EVIL}.txt"
    text.write_text(VERSES * 20, encoding="utf-8")
    evil = folder / EVIL
    status = main(
        [
            "train",
            str(text),
            "--steps",
            "6",
            "--eval-every",
            "3",
            "--checkpoints",
            str(evil),
            "--display",
            "none",
            *SMALL,
        ]
    )
    assert status == 0
    assert sorted(path.suffix for path in evil.glob("*.npz")) == [".npz", ".npz"]
    run = checkpoint.load_run(evil / f"{EVIL}.npz")
    (folder / "checkpoints").mkdir()
    checkpoint.save_run(folder / "checkpoints" / "moved.npz", run)
    return folder


@pytest.fixture
def here(trained: Path, folder: Path) -> Path:
    """A copy of it in the working folder, where the text of the run `moved` is missing."""
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    run = checkpoint.load_run(folder / "checkpoints" / "moved.npz")
    object.__setattr__(run.text, "sources", (f"/nowhere/{EVIL}.txt",))
    checkpoint.save_run(folder / "checkpoints" / "moved.npz", run)
    (folder / EVIL / f"{EVIL}-2.npz").write_bytes(b"damaged")
    return folder


class Terminal(io.TextIOWrapper):
    """A file that passes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run the program with a terminal as standard output and error, and return what the terminal got."""
    monkeypatch.setenv("TERM", "xterm-256color")
    path = tmp_path_factory.mktemp("terminal") / "got"

    def run(*words: str) -> str:
        terminal = Terminal(path.open("wb"), "utf-8", newline="", line_buffering=True)
        with terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            main(list(words))
        return path.read_bytes().decode()

    return run


TEXT = f"{EVIL}.txt"
TRAIN = ("train", TEXT, "--steps", "4", *SMALL)
CASES: dict[str, tuple[str, ...]] = {
    "lines": (*TRAIN, "--checkpoints", f"{EVIL}/2", "--display", "lines"),
    "bar": (*TRAIN, "--checkpoints", f"{EVIL}/2", "--display", "bar"),
    "live": (*TRAIN, "--checkpoints", f"{EVIL}/2", "--display", "live"),
    "json": (*TRAIN, "--checkpoints", f"{EVIL}/2", "--display", "json"),
    "none": (*TRAIN, "--checkpoints", f"{EVIL}/2", "--display", "none"),
    "run exists": (*TRAIN, "--checkpoints", EVIL),
    "resumed": ("resume", "--checkpoints", EVIL, "--steps", "8", "--display", "lines"),
    "nothing to do": ("resume", "--checkpoints", EVIL, "--display", "live"),
    "text is gone": ("resume", "moved"),
    "no such text": ("train", f"{EVIL}/no"),
    "no such run": ("resume", EVIL),
    "pretrained": ("train", TEXT, "--init-from", EVIL),
    "name": ("train", TEXT, "--name", f"{EVIL}/"),
    "encoding": ("train", TEXT, "--encoding", EVIL),
    "choice": ("train", TEXT, "--optimizer", EVIL),
    "number": ("train", TEXT, "--steps", EVIL),
    "sample": ("sample", "--checkpoints", EVIL, "--length", "5", "--prompt", "the "),
    "sample file": ("sample", f"{EVIL}/{EVIL}.npz", "--length", "5"),
    "sample nothing": ("sample", EVIL),
    "prompt": ("sample", "moved", "--prompt", EVIL),
    "prompt file": ("sample", "moved", "--prompt-file", EVIL),
    "output": ("sample", "moved", "--output", f"no/{EVIL}"),
    "novelty": ("sample", "moved", "--novelty", "--length", "100"),
    "skipped": ("sample", "moved", "--prompt", f"the {EVIL}", "--unknown", "skip", "--length", "5"),
    "info": ("info", "--checkpoints", EVIL),
    "info of a run": ("info", EVIL, "--checkpoints", EVIL),
    "info of a source": ("info", "moved"),
    "info of a damaged file": ("info", f"{EVIL}-2", "--checkpoints", EVIL),
    "info as JSON": ("info", "--checkpoints", EVIL, "--json"),
    "plot": ("info", EVIL, "--checkpoints", EVIL, "--plot", f"{EVIL}.png"),
    "no picture": ("info", EVIL, "--checkpoints", EVIL, "--plot", EVIL),
    "eval": ("eval", EVIL, TEXT, "--checkpoints", EVIL),
    "eval shown": ("eval", "moved", TEXT, "--show"),
    "eval of nothing": ("eval", "moved", EVIL),
    "command": (EVIL,),
    "option": ("train", f"--{EVIL}"),
    "surplus": ("info", "moved", EVIL),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_name_drives_the_terminal(here: Path, on_terminal: Callable[..., str], case: str) -> None:
    told = on_terminal(*CASES[case])
    assert told
    assert "Traceback" not in told
    for trace in TRACES:
        assert trace not in told, (trace, told)


@pytest.mark.parametrize("case", ["lines", "info", "info of a source"])
def test_what_a_name_has_of_control_characters_is_shown(here: Path, on_terminal: Callable[..., str], case: str) -> None:
    assert SHOWN in on_terminal(*CASES[case])


def test_a_script_gets_the_exact_name(here: Path, charlstm: Callable[..., Result]) -> None:
    result = charlstm(*CASES["lines"])
    assert result.out == f"{EVIL}/2/{EVIL}.best.npz\n"
    assert "\x1b" not in result.err
