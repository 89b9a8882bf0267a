"""The command line overrides the environment, option by option and where options can't be combined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMALL, Result

Program = Callable[..., Result]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("TEMPS", "0.5", "sample fables -l 20 --seed 1 --temp 0.1"),
        ("TEMP", "0.5", "sample fables -l 20 --seed 1 --temps 0.1"),
        ("LENGTH", "50", "sample fables --seed 1 --max-chars 90"),
        ("MAX_CHARS", "50", "sample fables --seed 1 --length 90"),
        ("PROMPT", "hello", "sample fables -l 20 --seed 1 --prompt-file prompt.txt"),
        ("SEPARATOR", "---", "eval fables prompt.txt"),
        ("FIELD", "text", "eval fables"),
    ],
)
def test_a_variable_that_would_contradict_the_command_line_is_not_there(
    charlstm: Program, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    Path("prompt.txt").write_text("The ")
    without = charlstm(*words.split())
    monkeypatch.setenv(f"CHARLSTM_{variable}", value)
    assert charlstm(*words.split()) == without
    assert without.status == 0


def test_a_display_on_the_command_line_is_shown_where_the_environment_is_quiet(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLSTM_QUIET", "1")
    assert charlstm("train", text, "--steps", 2, *SMALL).err == ""
    assert "saved" in charlstm("resume", "--steps", 4, "--display", "lines").err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sample fables --temp 0.1 --temps 0.5", "--temp and --temps can't be combined"),
        ("sample fables --length 9 --max-chars 9", "--length and --max-chars can't be combined"),
        ("eval fables --field text", "--field is for reading a TEXT"),
    ],
)
def test_what_the_command_line_contradicts_itself_in_is_refused(charlstm: Program, words: str, expected: str) -> None:
    told = charlstm(*words.split())
    assert told.status == 2
    assert expected in told.sentence


def test_the_value_of_an_option_can_look_like_one(charlstm: Program) -> None:
    assert charlstm("sample", "fables", "--prompt", "-length", "-l", 5).status == 0
