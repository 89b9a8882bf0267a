"""Help that teaches: groups, examples that are typed as they stand, every variable, and the word that was probably meant."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from charlstm.cli.app import app
from charlstm.settings import Optimizer
from tests.conftest import ROOT, SMALL, Result, spawn, sweep

Program = Callable[..., Result]
PROGRAM: Any = typer.main.get_command(app)
COMMANDS = ["train", "sample", "resume", "info", "eval", "export", "runs"]
OPTIONS = [
    (name, parameter)
    for name, command in PROGRAM.commands.items()
    for parameter in command.params
    if parameter.param_type_name == "option"
]


def examples(told: str) -> list[str]:
    """The lines to paste, from a command's help."""
    block = re.search(r"^Examples:\n((?: .*\n)+)", told, re.MULTILINE)
    assert block, told
    return [re.split(r" {2,}", line.strip())[0] for line in block[1].splitlines() if line.startswith("  charlstm ")]


@pytest.fixture(params=[60, 80, 100, 200])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_and_is_plain(charlstm: Program, columns: int, command: str) -> None:
    told = charlstm(command, "--help")
    assert (told.status, told.err) == (0, "")
    assert told.out.isascii(), "it must be readable on any terminal"
    pasted = examples(told.out)
    assert 2 <= len(pasted) <= 4
    for line in told.out.splitlines():
        assert len(line) <= min(columns, 100) or line.strip() in pasted, line
        assert line == line.rstrip()


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_stand_one_a_line_at_80_columns_as_they_are_typed(
    charlstm: Program, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for line in examples(charlstm(command, "--help").out):
        assert len(line) <= 76
        assert shlex.split(line)[:2] == ["charlstm", command]


def test_options_stand_in_groups_with_the_budget_first_and_running_late(charlstm: Program) -> None:
    groups = re.findall(r"^(\S.*):$", charlstm("train", "--help").out, re.MULTILINE)
    assert groups == ["Examples", "Arguments", "Duration", "Model", "Training", "Reading", "Running", "Options"]


@pytest.mark.parametrize("command", sweep(COMMANDS, *(c for c in COMMANDS if c not in ("train", "info"))))
def test_every_example_of_the_help_runs(
    charlstm: Program, text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    verses = text.read_text()
    (folder / "letters").mkdir()
    for name in ("trumptweets.txt", "tweets.txt", "newtweets.txt", "letters.txt", "letters/one.txt"):
        (folder / name).write_text("I will write verses!\n" + verses)
    (folder / "tweets.csv").write_text("id,text\n" + "".join(f'1,"I will, verse {k}"\n' for k in range(99)))
    (folder / "drafts.txt").write_text("I will ")
    assert charlstm("train", "trumptweets.txt", "--steps", 4, *SMALL).status == 0
    for line in examples(charlstm(command, "--help").out):
        if "--plot" in line and importlib.util.find_spec("matplotlib") is None:  # an extra
            continue
        if "safetensors" in line and importlib.util.find_spec("safetensors") is None:
            continue
        words = re.sub(r"--minutes \d+", "--steps 6", line)
        if command in ("train", "resume"):
            words += " --preview-every 0 --display none --if-exists overwrite" if command == "train" else ""
        done = charlstm(*shlex.split(words)[1:])
        assert done.status == 0, f"{line}: {done.err}"


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda it: it if isinstance(it, str) else it.name)
def test_every_option_has_an_environment_variable_and_the_help_names_it(
    charlstm: Program, command: str, option: Any
) -> None:
    longest = max(option.opts, key=len)
    assert option.envvar == "CHARLSTM_" + longest.removeprefix("--").replace("-", "_").upper()
    told = charlstm(command, "--help").out
    assert re.search(rf"\b{option.envvar}\b", told)
    for name in option.opts:
        assert re.search(rf"(?<!\w){name}\b", told)


def test_there_are_as_many_options_as_one_would_think() -> None:
    assert len(OPTIONS) > 45


def test_the_program_shows_its_commands_in_the_order_of_use_and_what_to_type_first(charlstm: Program) -> None:
    told = charlstm("--help")
    assert told.status == 0
    assert "\n  charlstm train " in told.out
    assert told.out.index("charlstm train") < told.out.index("Commands:")
    assert re.findall(r"^  (\w+) ", told.out.split("Commands:")[1].split("Options:")[0], re.MULTILINE) == COMMANDS


def test_without_a_command_the_same_is_told_on_stderr(charlstm: Program) -> None:
    told = charlstm()
    assert (told.status, told.out) == (2, "")
    assert told.err == charlstm("--help").out


def test_help_off_a_terminal_is_plain() -> None:
    process = spawn("sample", "--help", env={"TERM": "xterm"})
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert b"\x1b" not in out


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize("setting", sweep(["TERM=xterm", "NO_COLOR=1", "TERM=dumb"], "TERM=xterm", "TERM=dumb"))
def test_headings_are_bold_on_a_terminal_that_knows_it(setting: str) -> None:
    import pty

    primary, secondary = pty.openpty()
    process = spawn("info", "--help", env={"TERM": "xterm", **dict([setting.split("=")])}, stdout=secondary)
    os.close(secondary)
    told = b""
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not piece:
            break
        told += piece
    os.close(primary)
    process.communicate(timeout=20)
    assert b"Examples" in told
    assert (b"\x1b[" in told) == (setting != "TERM=dumb")


def test_help_imports_neither_numpy_nor_rich() -> None:
    code = (
        "import sys; from charlstm.cli.app import main; main(['train', '--help']);"
        "sys.exit(bool({'numpy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian"], "did you mean train?"),
        (["verses.txt", "--minutes", "1"], "did you mean 'charlstm train verses.txt --minutes 1'?"),
        (["x" * 5000], "use one of"),
        (["nonsense"], "use one of train, sample, resume, info, eval"),
        (["sample", "--temprature", "1"], "did you mean --temp?"),
        (["sample", "-temp", "1"], "did you mean --temp?"),
        (["train", "--temp", "1"], "'charlstm sample' has --temp"),
        (["--temp", "1"], "'charlstm sample' has --temp"),
        (["train", "--xyzzy"], "see 'charlstm train --help'"),
        (["--verion"], "did you mean --version?"),
        (["train", "--display", "liv"], "did you mean live?"),
        (["train", "--if-exists", "overwite"], "did you mean overwrite?"),
        (["train", "--optimizer", "magic"], f"({', '.join(get_args(Optimizer))}): see 'charlstm train --help'"),
        (["sample", "verse"], "did you mean verses?"),
        (["sample", "Verses"], "did you mean verses?"),
        (["info", "checkpoints/verse.npz"], "did you mean checkpoints/verses.npz"),
        (["train", "--init-from", "vrses"], "did you mean verses?"),
        (["train", "fabels"], "did you mean fables?"),
        (["train", "verse.txt"], "did you mean verses.txt"),
        (["train", "texts/peoms.txt"], "did you mean texts/poems.txt?"),
        (["eval"], "RUN is missing"),
        (["sample", "--temp"], "requires an argument"),
    ],
)
def test_what_was_probably_meant_is_said(
    charlstm: Program, copy_run: Callable[..., None], folder: Path, words: list[str], meant: str
) -> None:
    copy_run(5)
    (folder / "texts").mkdir()
    (folder / "texts" / "poems.txt").write_text("a poem")
    told = charlstm(*words)
    assert (told.status, told.out) == (2, "")
    assert meant in told.sentence


def test_a_wrong_word_from_the_environment_is_told_by_its_variable(
    charlstm: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLSTM_DISPLAY", "liv")
    assert "CHARLSTM_DISPLAY 'liv' is unknown" in charlstm("train").sentence


def test_the_page_of_commands_is_what_the_program_says() -> None:
    from tests.experiments import commands

    assert commands.PAGE.read_text(encoding="utf-8") == commands.page(), (
        "docs/commands.md is stale: python -m tests.experiments.commands --write"
    )
