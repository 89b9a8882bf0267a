"""What Tab offers, asked through the scripts that the shells load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from charlstm.settings import Optimizer
from tests.conftest import ROOT, Result, slow, sweep

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="shells of other systems")]


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder with runs and texts in it; completing reads names only, so the files are empty."""
    for name in (
        "checkpoints/tweets.npz", "checkpoints/tweets.best.npz", "checkpoints/letters.npz", "checkpoints/.hidden.npz",
        "elsewhere/other.npz", "corpora/poems.txt", "texts/tides.txt", "letters.txt", "my notes.txt", ".secret.txt",
    ):  # fmt: skip
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return folder


def environment(folder: Path) -> dict[str, str]:
    """One in which `charlstm` is this checkout's."""
    programs = folder / "bin of tests"
    programs.mkdir(exist_ok=True)
    program = programs / "charlstm"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m charlstm "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def bash(folder: Path, *words: str, **more: str) -> list[str]:
    """What bash would offer for the last word."""
    script = """
        eval "$(charlstm --show-completion)"
        COMP_WORDS=(charlstm "$@"); COMP_CWORD=$#
        _charlstm_completion charlstm
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = ["bash", "-c", script, "bash", *words]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(folder), **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


CASES: list[tuple[list[str], list[str]]] = [
    ([""], ["train", "sample", "resume", "info", "eval", "export", "runs"]),
    (["tr"], ["train"]),
    (["sample", ""], ["letters", "tweets"]),
    (["resume", "tw"], ["tweets"]),
    (["sample", "checkpoints/t"], ["checkpoints/tweets.best.npz", "checkpoints/tweets.npz"]),
    (["sample", "else"], ["elsewhere/other.npz"]),
    (["info", "--checkpoints", "elsewhere", ""], ["other"]),
    (["eval", "tw"], ["tweets"]),
    (["eval", "tweets", "le"], ["letters.txt"]),
    (["train", "--init-from", "l"], ["letters"]),
    (["train", "fa"], ["fables"]),
    (["train", "po"], ["poems"]),
    (["train", "tex"], ["texts/tides.txt"]),
    (["train", "my"], []),
    (["train", "--display", "l"], ["live", "lines"]),
    (["train", "--optimizer", ""], list(get_args(Optimizer))),
    (["train", "letters.txt", "--if"], ["--if-exists"]),
]
"""The words up to the cursor, and what is offered for the last of them."""


@pytest.mark.parametrize(("words", "offered"), CASES)
def test_what_there_is_is_offered(
    charlstm: Callable[..., Result],
    place: Path,
    words: list[str],
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a shell's script asks for it, in this process."""
    monkeypatch.setenv("_CHARLSTM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "\n".join(["charlstm", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert sorted(charlstm().out.split()) == sorted(offered)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("case", sweep(range(len(CASES)), 2))
def test_bash_is_offered_what_there_is(place: Path, case: int) -> None:
    words, offered = CASES[case]
    assert sorted(bash(place, *words)) == sorted(offered)


@slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_folder_of_runs_is_that_of_the_environment(place: Path) -> None:
    assert bash(place, "sample", "", CHARLSTM_CHECKPOINTS="elsewhere") == ["other"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_load_their_script_and_ask_the_same(place: Path, shell: str) -> None:
    """The script is loaded where the shell is there; what the program answers it is asked in any case."""
    variables = environment(place) | {
        "_CHARLSTM_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "charlstm sample tw", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    asked = subprocess.run(["charlstm"], cwd=place, env=variables, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert "tweets" in asked.stdout
    assert "letters" not in asked.stdout
    if shutil.which(shell) is not None:
        load = {"zsh": "autoload -Uz compinit && compinit -u; charlstm --show-completion | source /dev/stdin"}
        script = load.get(shell, "charlstm --show-completion | source; complete -C 'charlstm sample tw'")
        done = subprocess.run(
            [shell, "-c", script], cwd=place, env=environment(place), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert shell == "zsh" or "tweets" in done.stdout


def test_completing_imports_no_numpy(place: Path) -> None:
    variables = {"_CHARLSTM_COMPLETE": "complete_bash", "COMP_WORDS": "charlstm\nsample\n", "COMP_CWORD": "2"}
    code = (
        "import sys; from charlstm.cli.app import main; main([]);"
        "sys.exit(bool({'numpy', 'tqdm', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["letters", "tweets"]
