"""`sample`: how a text begins and ends, what JSON tells of it, and the conversation of -i."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from charlstm import api
from charlstm.cli import sample as cli_sample
from charlstm.errors import UsageError
from charlstm.inference import drafts
from charlstm.settings import SampleConfig
from charlstm.text.lines import line_quantiles, opening
from charlstm.text.prompt import read_prompt
from charlstm.text.vocabulary import Vocabulary
from tests.conftest import ROOT, SMALL, Result, slow, spawn

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


@pytest.mark.parametrize(
    ("text", "before"),
    [("a\nbb\n", "\n"), ("a\n\nbb\n\nc\n\n", "\n\n"), ("a\n" * 99 + "\n", "\n"), ("a b", "")],
)
def test_a_text_without_a_prompt_begins_a_line_or_a_paragraph(text: str, before: str) -> None:
    """Where empty lines separate paragraphs, the next character after a single line end would be another."""
    vocabulary = Vocabulary("".join(sorted(set(text))))
    assert opening(vocabulary, line_quantiles(vocabulary.encode(text), vocabulary)) == before
    assert opening(vocabulary, ()) == before[:1]


def test_the_first_paragraph_of_the_bundled_model_is_not_empty() -> None:
    fables = api.load(ROOT / "checkpoints" / "fables.npz")
    made = fables.sample_many(range(32), SampleConfig(lines=1, length=0))
    assert all(len(line) > 1 for line in map("".join, zip(*made, strict=True)))


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
    assert out.count("\n") == (4 + prompt.count("\n")) * count + count - 1, "an empty line between two texts"
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
    monkeypatch.setattr(drafts, "LONGEST_LINE", 10)
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


def test_temperature_zero_is_greedy_whatever_the_seed_and_the_coldest_does_not_overflow(
    charlstm: Program, run: str
) -> None:
    options = ("--length", 40, "--seed")
    assert charlstm("sample", "--temp", 0, *options, 1).out == charlstm("sample", "--temp", 0, *options, 2).out
    assert len(charlstm("sample", "--temp", "1e-320", *options, 1).out) == 40


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
    assert lines[0] == "/temp takes a number, as in '/temp 0.8'"
    assert lines[1].startswith("/temp -1 is out of range")
    assert lines[2] == "/length takes a whole number, as in '/length 300'"
    assert lines[3].startswith("/seed -1 is out of range")
    assert "/nonsense" in lines[4]
    assert lines[6:8] == ["temp 0.8", "length 300"]
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
    monkeypatch.setattr(drafts, "LONGEST_LINE", 10)
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


# -- lines and texts that fit


def test_a_quiet_conversation_names_no_seed(charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the\n")))
    told = charlstm("sample", "-i", "-q", "-l", 5)
    assert (told.status, told.err) == (0, "")


def test_a_length_that_is_set_in_a_conversation_takes_the_place_of_the_other(
    typed: Callable[..., Result],
) -> None:
    told = typed(b"/length 5\n/max-chars\nthe\n", "--max-chars", 60)
    assert told.err.splitlines() == ["length 5", "max-chars 0"]
    assert len(told.out) == len("the" + "12345" + "\n")


def test_each_line_fits_and_ends_where_a_line_or_sentence_ends(charlstm: Program, run: str) -> None:
    options = ("--lines", 3, "-n", 20, "--seed", 1, "--separator", "#")
    free = charlstm("sample", *options).out
    lines = charlstm("sample", *options, "--max-chars", 30).out.splitlines()
    assert len(lines) == 20 * 4 - 1
    assert max(map(len, lines)) <= 30 < max(map(len, free.splitlines()))
    assert charlstm("sample", *options, "--max-chars", 1000).out == free


def test_a_text_that_fits_ends_with_a_sentence_and_begins_with_the_prompt() -> None:
    model = written("One two. Is it? “Yes.” It is a 3.5 in the U.S. Army. And more that is not", 61)
    texts = ["".join(model(max_chars=n, prompt="On")) for n in (10, 16, 22, 30, 51, 55)]
    assert texts == ["e two.", "e two. Is it?", "e two. Is it? “Yes.”", *["e two. Is it? “Yes.”"] * 2, texts[-1]]
    assert texts[-1].endswith("Army.")


def test_a_line_is_cut_after_the_last_sentence_that_fits() -> None:
    model = written("It is. The end is here. And more text follows it", 48)
    lines = [next(filter(None, model(max_chars=n, lines=1))) for n in (22, 23, 24)]
    assert lines == ["It is.\n", "It is. The end is here.\n", "It is. The end is here.\n"]


def written(text: str, more: int) -> Callable[..., Any]:
    """A model that writes a text and then letters for ever, whatever the settings; its drafts are real."""

    def sample(**settings: Any) -> Iterator[str]:
        config = SampleConfig(**settings)
        place = len(config.prompt)

        def restore(state: int, character: str) -> None:
            nonlocal place
            place = state

        draft = drafts.Draft(config, config.prompt, None, lambda: place, restore)
        while not draft.over:
            character = text[place] if place < len(text) else "x"
            place += 1
            yield draft.take(character)

    return sample


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max-chars 1 --lines 1 --prompt 'the cat'", "raise --max-chars"),
        ("--max-chars 9 --lines 1 --temp 0", "raise --max-chars"),
        ("--no-copy 1 --length 100 --temp 0", "at --temp 0"),
        pytest.param("--no-copy 1 --lines 1 --temp 1", "raise --no-copy or --temp", marks=slow),
        pytest.param("--no-copy 1 --lines 1 -n 40", "raise --no-copy", marks=slow),
    ],
)
def test_what_no_draft_can_do_is_one_sentence(charlstm: Program, run: str, words: str, expected: str) -> None:
    result = charlstm("sample", *shlex.split(words), "--seed", 1)
    assert result.status == (2 if "--prompt" in words else 1)
    assert expected in result.sentence


def test_a_length_is_exact_or_a_limit_but_not_both(charlstm: Program, run: str) -> None:
    assert "can't be combined" in charlstm("sample", "--max-chars", 9, "--length", 9).sentence


def test_no_line_contains_a_passage_of_the_text(charlstm: Program, run: str) -> None:
    text = Path("verses.txt").read_text(encoding="utf-8")
    options = ("--lines", 4, "-n", 8, "--seed", 1, "--temp", 0.5, "--json")
    for chars, copied in ((0, True), (5, False)):
        out = charlstm("sample", *options, "--no-copy", chars).out
        samples = [json.loads(line)["text"] for line in out.splitlines()]
        assert copied == any(sample[k : k + 5] in text for sample in samples for k in range(len(sample) - 4))
    prompt = charlstm("sample", "--lines", 1, "--prompt", "the cat", "--no-copy", 8, "--seed", 1).out
    assert prompt[:8] not in text, "a passage that begins in the prompt counts"
    Path("verses.txt").unlink()
    gone = charlstm("sample", *options, "--no-copy", 5)
    assert (gone.status, gone.out) == (2, "")
    assert "--no-copy" in gone.sentence


def test_drafts_are_the_same_alone_and_together(run: str) -> None:
    model = api.load(run)
    settings = SampleConfig(temperature=0.6, lines=2, max_chars=30, no_copy=6)
    together = ["".join(pieces) for pieces in zip(*model.sample_many(range(9), settings), strict=True)]
    assert together == ["".join(model.sample(**vars(settings), seed=seed)) for seed in range(9)]


def test_temperature_zero_notices_a_circle(charlstm: Program, folder: Path) -> None:
    (folder / "ab.txt").write_text("abababababababab" * 50 + "\n", encoding="utf-8")
    assert charlstm("train", "ab.txt", "--steps", 30, "--val-fraction", 0, *SMALL).status == 0
    result = charlstm("sample", "--lines", 1, "--temp", 0, "--seed", 1)
    assert result.status == 1
    assert "goes round in a circle" in result.sentence
    finite = charlstm("sample", "--length", 200, "--temp", 0, "--seed", 1)
    assert (finite.status, len(finite.out)) == (0, 200)
    assert "a circle of 2 characters" in finite.err


# -- several texts


def test_a_batch_makes_no_difference(charlstm: Program, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("sample", "-n", 7, "--seed", 3, "--length", 40)
    whole = [charlstm(*options, *more).out for more in ((), ("--json",))]
    monkeypatch.setattr(cli_sample, "BATCH", 3)
    assert [charlstm(*options, *more).out for more in ((), ("--json",))] == whole


def test_the_separator_is_a_line_of_its_own(charlstm: Program, run: str) -> None:
    one = [charlstm("sample", "--lines", 2, "--seed", seed).out for seed in (3, 4)]
    both = ("sample", "--lines", 2, "-n", 2, "--seed", 3)
    assert charlstm(*both).out == "\n".join(one)
    assert charlstm(*both, "--separator", "-\\t-").out == "-\t-\n".join(one)
    assert charlstm("sample", "--lines", 1, "-n", 5, "--seed", 3).out.count("\n") == 5


def test_one_of_each_temperature(charlstm: Program, run: str) -> None:
    result = charlstm("sample", "--temps", "0.4,1.0", "--length", 30, "--seed", 3)
    one = [charlstm("sample", "--temp", temp, "--length", 30, "--seed", 3).out for temp in (0.4, 1)]
    assert result.out == "\n\n".join(text.removesuffix("\n") for text in one) or result.out == "\n\n".join(one)
    assert result.err.endswith("seed 3\n--temp 0.4:\n--temp 1:\n")
    assert "--temps" in charlstm("sample", "--temps", "0.4;x").sentence
    assert "--temp -1" in charlstm("sample", "--temps", "0.4,-1").sentence


def test_a_dash_is_standard_output(charlstm: Program, run: str) -> None:
    assert charlstm("sample", "--output", "-", "--length", 9, "--seed", 1).out
    assert not Path("-").exists()


def test_a_stop_text_understands_newlines_and_must_be_possible(charlstm: Program, run: str) -> None:
    line = charlstm("sample", "--lines", 1, "--seed", 5).out
    assert charlstm("sample", "--stop", "\\n", "--seed", 5).out == line.removesuffix("\n")
    refused = charlstm("sample", "--stop", "é")
    assert (refused.status, refused.out) == (2, "")
    assert "never saw 'é'" in refused.sentence
    assert "--prompt-file" in charlstm("sample", "--prompt", "the\\n").sentence


def test_a_prompt_of_unseen_characters_is_refused(charlstm: Program, run: str, typed: Callable[..., Result]) -> None:
    refused = charlstm("sample", "--prompt", "éß", "--unknown", "skip")
    assert (refused.status, refused.out) == (2, "")
    assert "any character of the prompt" in refused.sentence
    told = typed("éß\n".encode())
    assert (told.status, told.out) == (0, "")
    assert "nothing to continue" in told.err


@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="Ctrl-C in input() may be a SystemError of Python 3.10 itself: a result with an exception set",
)
def test_ctrl_c_clears_a_half_typed_line(run: str) -> None:
    import pty

    leader, follower = pty.openpty()
    process = spawn("sample", run, "-i", "--seed", 7, "--length", 5, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = bytearray()

    def shown(mark: bytes) -> None:
        while mark not in seen:
            seen.extend(os.read(leader, 65536))
        del seen[: seen.index(mark) + len(mark)]

    shown(b"> ")
    os.write(leader, b"half a li")
    shown(b"half a li")
    process.send_signal(signal.SIGINT)
    shown(b"Ctrl-C again exits")
    os.write(leader, b"the cat\n")
    shown(b"the cat")
    shown(b"the cat")  # the answer; the half line is gone
    for _ in range(2):
        shown(b"> ")
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while os.read(leader, 65536):
            pass
    assert process.wait(timeout=20) == 130
    process.communicate()
    os.close(leader)
