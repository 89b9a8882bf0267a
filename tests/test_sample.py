"""`sample`: how a text begins and ends, what JSON tells of it, and the conversation of -i."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm import api
from charlstm.errors import UsageError
from charlstm.inference import sampling
from charlstm.settings import SampleConfig
from charlstm.text.prompt import read_prompt
from tests.conftest import SMALL, Result

Program = Callable[..., Result]


@pytest.fixture
def run(copy_run: Callable[..., None]) -> str:
    copy_run(60)
    return "verses"


@pytest.fixture
def typed(charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run sample -i on lines from a pipe."""

    def answer(lines: bytes, *words: object) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), "cp1252"))
        return charlstm("sample", "-i", "--seed", 7, *words)

    return answer


# -- how it begins


def test_a_prompt_from_a_file_is_that_prompt(charlstm: Program, run: str, folder: Path) -> None:
    (folder / "p.txt").write_bytes(b"\xef\xbb\xbfthe cat\r\nsat\n")
    options = ("--length", 20, "--seed", 1)
    assert (
        charlstm("sample", "--prompt-file", "p.txt", *options).out
        == charlstm("sample", "--prompt", "the cat\nsat", *options).out
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"the\ncat \xff", "line 2, offset 8: byte 0xFF"),
        ("naïve".encode(), "U+00EF"),
        (None, "No such file"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_sentence(
    charlstm: Program, run: str, folder: Path, data: bytes | None, expected: str
) -> None:
    if data is not None:
        (folder / "p.txt").write_bytes(data)
    result = charlstm("sample", "--prompt-file", "p.txt")
    assert (result.status, result.out) == (2, "")
    assert expected in result.sentence


def test_a_prompt_from_standard_input_is_utf8_whatever_the_terminal_is(
    charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Piped:
        closed = False

        def fileno(self) -> int:
            return self.file.fileno()

    for data, status in (("the é\n".encode(), 0), (b"the \xe9\n", 2)):
        Path("piped").write_bytes(data)
        with open("piped", "rb") as Piped.file:  # type: ignore[attr-defined]
            monkeypatch.setattr(sys, "stdin", Piped())
            result = charlstm("sample", "--prompt", "-", "--unknown", "skip", "--length", 5, "--seed", 1)
        assert result.status == status
        assert len(result.out) == (9 if status == 0 else 0)


def test_both_prompts_are_one_too_many(charlstm: Program, run: str) -> None:
    assert "--prompt-file" in charlstm("sample", "--prompt", "a", "--prompt-file", "b").sentence


# -- how it ends


@pytest.mark.parametrize("prompt", ["", "the cat", "the cat\n", "the cat\nsat on"])
@pytest.mark.parametrize("count", [1, 3])
def test_so_many_lines_are_written_and_each_is_whole(charlstm: Program, run: str, prompt: str, count: int) -> None:
    out = charlstm("sample", "--lines", 4, "-n", count, "--prompt", prompt, "--seed", 2).out
    assert out.count("\n") == (4 + prompt.count("\n")) * count
    assert out.endswith("\n")
    assert out.count(prompt) >= count


def test_length_and_stop_come_before_lines(charlstm: Program, run: str) -> None:
    whole = charlstm("sample", "--lines", 5, "--seed", 2).out
    assert charlstm("sample", "--lines", 5, "--length", 7, "--seed", 2).out == whole[:7]
    second = whole.index("\n", 30)
    stop = whole[second : second + 3]
    assert charlstm("sample", "--lines", 5, "--stop", stop, "--seed", 2).out == whole[: whole.index(stop)]
    one = charlstm("sample", "--length", 1, "--prompt", "the cat sat on the mat", "--seed", 2).out
    assert len(one) == 23


@pytest.mark.parametrize("count", [1, 2])
def test_a_line_end_that_never_comes_is_not_waited_for(
    charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(sampling, "LONGEST_LINE", 10)
    result = charlstm("sample", "--lines", 3, "-n", count, "--seed", 2)
    assert result.status == 1
    assert "without a line end" in result.sentence
    assert charlstm("sample", "--lines", 3, "--length", 40, "--seed", 2).status == 0


def test_lines_of_a_model_without_line_ends_are_refused_before_the_seed_is_told(
    charlstm: Program, folder: Path
) -> None:
    (folder / "dense.txt").write_text("abcdefgh" * 100)
    assert charlstm("train", "dense.txt", "--steps", 3, *SMALL).status == 0
    refused = charlstm("sample", "--lines", 2)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == refused.sentence + "\n"
    assert len(charlstm("sample", "--lines", 2, "--length", 30, "--seed", 1).out) == 30
    told = json.loads(charlstm("sample", "--length", 1, "--seed", 1, "--json").out)
    assert told["nats_per_char"] is None, "its first character is drawn by chance, and nothing is to predict"


# -- settings out of range


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seed", "-1"], "--seed -1"),
        (["--top-k", "-1"], "--top-k -1"),
        (["--top-p", "1.5"], "--top-p 1.5"),
        (["--temp", "nan"], "--temp nan"),
        (["--lines", "-1"], "--lines -1"),
        (["-n", "-3"], "-n -3"),
        (["--unknown", "perhaps"], "perhaps"),
        (["-n", "2", "--length", "0"], "--length"),
        (["-i", "--json"], "-i and --json"),
        (["-i", "-n", "2"], "-i and -n"),
        (["-i", "--prompt", "x"], "-i and --prompt"),
    ],
)
def test_what_cannot_be_is_one_sentence(charlstm: Program, run: str, words: list[str], expected: str) -> None:
    result = charlstm("sample", *words)
    assert (result.status, result.out) == (2, "")
    assert expected in result.sentence


def test_the_coldest_temperature_is_greedy_and_does_not_overflow(charlstm: Program, run: str) -> None:
    greedy = charlstm("sample", "--temp", 0, "--length", 40, "--seed", 1).out
    assert charlstm("sample", "--temp", "1e-320", "--length", 40, "--seed", 1).out == greedy


# -- JSON


def test_json_is_one_object_a_sample_with_the_settings_and_the_surprise_of_the_new_text(
    charlstm: Program, run: str
) -> None:
    out = charlstm("sample", "--json", "-n", 2, "--length", 60, "--prompt", "the ", "--temp", 0.5, "--seed", 3).out
    told = [json.loads(line) for line in out.splitlines()]
    assert [(one["seed"], len(one["text"])) for one in told] == [(3, 64), (4, 64)]
    for one in told:
        assert one["settings"] == vars(SampleConfig(temperature=0.5, length=60, prompt="the "))
        new = one["text"].removeprefix("the ")
        assert one["nats_per_char"] == pytest.approx(api.load(run).evaluate(new, prompt="the "), rel=1e-12)


# -- a conversation


def test_each_line_is_answered_with_the_next_seed(typed: Callable[..., Result], charlstm: Program) -> None:
    told = typed(b"the cat\n\n/again\nthe dog", "--length", 30)
    assert (told.status, told.err) == (0, "")
    expected = ""
    for seed, prompt in ((7, "the cat"), (8, ""), (9, ""), (10, "the dog")):
        expected += charlstm("sample", "--length", 30, "--seed", seed, "--prompt", prompt).out.removesuffix("\n") + "\n"
    assert told.out == expected


def test_a_word_changes_the_setting_that_it_names(typed: Callable[..., Result], charlstm: Program) -> None:
    words = b"/temp 0.5\n/top-k 4\n/top-p 0.9\n/length 25\n/lines 2\n/seed 3\n/temp\nthe\n"
    told = typed(words)
    assert told.err.splitlines() == ["temp 0.5", "top-k 4", "top-p 0.9", "length 25", "lines 2", "seed 3", "temp 0.5"]
    options = ("--temp", 0.5, "--top-k", 4, "--top-p", 0.9, "--length", 25, "--lines", 2, "--seed", 3)
    assert told.out.removesuffix("\n") == charlstm("sample", *options, "--prompt", "the").out.removesuffix("\n")


def test_a_mistake_is_told_and_changes_nothing(typed: Callable[..., Result]) -> None:
    words = b"/temp hot\n/temp -1\n/length 2.5\n/seed -1\n/nonsense\n/temp 1 2\n/temp\n/length\n/help\n"
    told = typed(words)
    assert (told.status, told.out) == (0, "")
    lines = told.err.splitlines()
    assert lines[0] == "/temp takes a number, as in '/temp 1.0'"
    assert lines[1].startswith("/temp -1 is out of range")
    assert lines[2] == "/length takes a whole number, as in '/length 300'"
    assert lines[3].startswith("/seed -1 is out of range")
    assert "/nonsense" in lines[4]
    assert lines[6:8] == ["temp 1", "length 300"]
    assert "Ctrl-D exits" in told.err


def test_what_the_model_never_saw_is_told_and_left_out(typed: Callable[..., Result]) -> None:
    told = typed("the é\n//x\nthe\\ncat\n".encode() + b"\xff\n", "--length", 5)
    assert "never saw 'é' (U+00E9)" in told.err
    assert "never saw '/' (U+002F), 'x'" in told.err
    assert "'\ufffd'" in told.err
    assert told.out.startswith("the ")
    assert "\nthe\ncat" in told.out


def test_lines_are_answered_until_a_line_end_never_comes(
    typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "LONGEST_LINE", 10)
    told = typed(b"/length 0\n/lines 9\nthe\n/lines 0\n/length 3\nthe\n")
    assert told.status == 0
    assert "without a line end" in told.err
    assert told.out.count("the") >= 2


def test_ctrl_c_ends_the_text_and_not_the_conversation(
    typed: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = api.Model.sample

    def interrupted(self: api.Model, **settings: object) -> object:
        made = whole(self, **settings)  # type: ignore[arg-type]
        if settings["seed"] != 7:
            return made
        return (c if k < 3 else _raise(KeyboardInterrupt) for k, c in enumerate(made))

    monkeypatch.setattr(api.Model, "sample", interrupted)
    told = typed(b"the\nthe\n", "--length", 10)
    assert told.status == 0
    assert [len(line) for line in told.out.split("\nthe")[0:1]] == [6]


def _raise(error: type[BaseException]) -> str:
    raise error


def test_a_conversation_without_a_standard_input_is_refused(
    charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in charlstm("sample", "-i").sentence
    with pytest.raises(UsageError):
        read_prompt("-")
