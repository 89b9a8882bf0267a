"""The commands among pipes, terminals and other programs, as real processes: no traceback, the right status, nothing lost.

By default one command in each environment; all of them in all of them are slow.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from charlstm.storage import checkpoint
from tests.conftest import ROOT, SMALL, slow, sweep

pytestmark = [
    pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="needs bash"),
]
TRAIN = f"charlstm train été.txt --steps 40 --if-exists overwrite {' '.join(SMALL[:-1])} 0.05"
READERS = {
    "help": "charlstm --help",
    "train --help": "charlstm train --help",
    "info": "charlstm info kept",
    "info --json": "charlstm info kept --json",
    "eval": "charlstm eval kept été.txt",
    "eval --show": "charlstm eval kept été.txt --show",
}
WRITERS = {kind: f"{TRAIN} --display {kind}" for kind in ("auto", "bar", "live", "json")}
WRITERS["resume"] = "charlstm resume kept --steps 80 --preview-every 0.05"
EVERYTHING = READERS | WRITERS
SOME = {name: EVERYTHING[name] for name in ("info", "eval --show", "auto", "bar", "live", "json", "resume")}


@dataclass
class Done:
    """How a line of bash ended: the status of its last command but for `PIPE`, that of the first in the pipe."""

    status: int
    out: str
    err: str


@pytest.fixture
def place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text of accents, another script, emoji, markup and escapes, and a small run on it called kept."""
    made = tmp_path_factory.getbasetemp() / "shells"
    text = "naïve 猫 and the cat sat on the mat [bold] 😀 \x1b[31m é\n" * 60
    if not made.exists():
        made.mkdir()
        for name in ("été.txt", "kept.txt"):
            (made / name).write_text(text, encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "charlstm", "train", "kept.txt", "--steps", "40", *SMALL],
            cwd=made, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
        )  # fmt: skip
        program = made / "programs" / "charlstm"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m charlstm "$@"\n')
        program.chmod(0o755)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def bash(line: str, place: Path, **variables: str) -> Done:
    """Run a line; what comes back is checked for tracebacks at once."""
    environment = {**os.environ, "PATH": f"{place}/programs:{os.environ['PATH']}", "TERM": "xterm", **variables}
    done = subprocess.run(
        ["bash", "-c", line], cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=90
    )  # fmt: skip
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    for word in ("Traceback", "Exception ignored", "Error:"):
        assert word not in out + err, f"{line}:\n{out}{err}"
    return Done(done.returncode, out, err)


PIPE = "; exit ${PIPESTATUS[0]}"


@pytest.mark.parametrize("command", sweep(EVERYTHING, "eval --show"))
def test_a_reader_that_leaves_is_no_error(place: Path, command: str) -> None:
    done = bash(f"{command} | head -c 100 {PIPE}", place)
    assert done.status == 0, done.err
    assert 0 < len(done.out.encode()) <= 103  # a character cut in two


@pytest.mark.parametrize("command", sweep(EVERYTHING, "auto"))
def test_the_log_and_the_product_can_share_a_pipe(place: Path, command: str) -> None:
    done = bash(f"{command} 2>&1 | cat {PIPE}", place)
    assert (done.status, done.err) == (0, "")
    if "--display live" not in command:
        assert "\x1b[" not in re.sub("\x1b\\[31m", "", done.out), "no control codes off a terminal"


@pytest.mark.parametrize("command", sweep(EVERYTHING, "bar"))
def test_a_reader_of_the_log_that_leaves_is_no_error(place: Path, command: str) -> None:
    assert bash(f"{command} 2>&1 | head -c 100 {PIPE}", place).status == 0
    if command in WRITERS.values():
        run, steps = ("kept", 80) if "kept" in command else ("été", 40)
        saved = checkpoint.load_run(place / "checkpoints" / f"{run}.npz").step
        assert saved == steps or ("json" in command and saved > 0), "with nobody left to tell, JSON ends, and is saved"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", sweep(EVERYTHING, "resume"))
def test_a_full_disk_under_stdout_is_status_1_and_one_sentence(place: Path, command: str) -> None:
    """--display json ends as it does where the reader of its events has left, but not as if all were well."""
    done = bash(f"{command} > /dev/full", place)
    assert done.status == 1
    said = [line for line in done.err.splitlines() if line.startswith("charlstm: ")]
    assert len(said) == 1
    assert "No space left" in said[0]
    if command in WRITERS.values():
        assert bash("charlstm info été" if "été" in command else "charlstm info kept", place).status == 0, (
            "it was saved"
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("words", "status"),
    [("trian", 2), *(pytest.param(w, 2, marks=slow) for w in ("info nobody", "", "train nowhere.txt"))],
)
def test_the_status_of_an_error_stands_when_nobody_can_be_told(place: Path, words: str, status: int) -> None:
    assert bash(f"charlstm {words} 2> /dev/full", place).status in (status, 1 if not words else status)


@slow
@pytest.mark.parametrize("stream", ["<&-", ">&-"])
@pytest.mark.parametrize("command", ["charlstm --help", "charlstm train --help", f"{TRAIN} --display lines"])
def test_a_stream_that_came_closed_is_no_traceback(place: Path, command: str, stream: str) -> None:
    assert bash(f"{command} {stream}", place).status == 0


@pytest.mark.skipif(shutil.which("script") is None, reason="no script")
@pytest.mark.parametrize("command", sweep(EVERYTHING, "auto"))
def test_on_the_terminal_of_script(place: Path, command: str) -> None:
    done = bash(f"script -qec '{command}' /dev/null", place)
    assert done.status == 0, done.out
    assert done.out


@pytest.mark.skipif(shutil.which("script") is None, reason="no script")
def test_an_error_on_a_terminal_is_the_same_sentence(place: Path) -> None:
    done = bash("script -qec 'charlstm info --jsn' /dev/null", place)
    assert done.status == 2
    assert done.out == "charlstm: 'charlstm info' has no option --jsn: did you mean --json?\r\n"


@pytest.mark.skipif(shutil.which("script") is None, reason="no script")
@pytest.mark.parametrize(
    ("variables", "allowed"),
    [({"TERM": "dumb"}, set()), ({"NO_COLOR": "1"}, {"0", "1", "2", "4"})],
    ids=["dumb", "NO_COLOR"],
)
@pytest.mark.parametrize("command", sweep(READERS | {"live": WRITERS["live"]}, "info"))
def test_where_colour_is_not_wanted_there_is_none_and_on_a_dumb_terminal_no_style_at_all(
    place: Path, command: str, variables: dict[str, str], allowed: set[str]
) -> None:
    """NO_COLOR is about colour: bold, dim and underlined may stay."""
    done = bash(f"script -qec '{command}' /dev/null", place, **variables)
    assert done.status == 0
    assert {code for codes in re.findall("\x1b\\[([0-9;]*)m", done.out) for code in codes.split(";")} <= allowed


@pytest.mark.parametrize("command", sweep(SOME, "auto"))
def test_under_nohup(place: Path, command: str) -> None:
    done = bash(f"nohup {command}", place)
    assert done.status == 0, done.err
    assert done.out


@slow
@pytest.mark.skipif(shutil.which("timeout") is None, reason="no timeout")
def test_timeout_ends_training_after_saving(place: Path) -> None:
    line = TRAIN.replace("--steps 40", "--minutes 5")
    for seconds in (3, 30):  # on a busy machine three may be gone before there is a run
        done = bash(f"timeout --preserve-status {seconds} {line}", place)
        assert done.status == 143, done.err
        if done.out:
            break
    assert done.out in ("checkpoints/été.best.npz\n", "checkpoints/été.npz\n")
    assert bash("charlstm resume été --steps 1", place).status == 0


ENCODINGS = {
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "cp1252": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


@pytest.mark.parametrize("variables", sweep(ENCODINGS, "ascii"))
@pytest.mark.parametrize("command", sweep(SOME, "eval --show"))
def test_a_terminal_that_knows_few_characters(place: Path, command: str, variables: dict[str, str]) -> None:
    done = bash(command, place, **variables)
    assert done.status == 0, done.err
    assert done.out


@slow
@pytest.mark.parametrize("variables", sweep(ENCODINGS))
def test_an_error_with_characters_that_the_terminal_does_not_know(place: Path, variables: dict[str, str]) -> None:
    for line in ("charlstm info 猫", "charlstm train 猫.txt", "charlstm 猫", "charlstm info --猫"):
        done = bash(line, place, **variables)
        assert done.status == 2, line
        assert done.err.count("charlstm: ") == 1
