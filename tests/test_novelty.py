"""--novelty: what a sample copied is found, all of it and nothing else, whatever the size of the text."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlstm.inference import novelty
from charlstm.inference.novelty import PIECE, Copied, TrainingText
from charlstm.text import again
from charlstm.text.vocabulary import Vocabulary
from tests.conftest import SMALL, VERSES, Result, sweep

Program = Callable[..., Result]


def as_text(words: str, dtype: type = np.uint8) -> TrainingText:
    vocabulary = Vocabulary("".join(sorted(set(words))))
    return TrainingText(vocabulary.encode(words).astype(dtype), vocabulary)


def by_hand(text: str, sample: str) -> Copied:
    pieces = [sample[k : k + PIECE] for k in range(len(sample) - PIECE + 1)]
    longest = max(
        (b - a for a in range(len(sample)) for b in range(a + PIECE, len(sample) + 1) if sample[a:b] in text), default=0
    )
    return Copied(len(pieces), sum(piece in text for piece in pieces), longest)


@pytest.mark.parametrize("block", sweep([7, PIECE, 1 << 16], 7))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_is_what_looking_for_each_piece_finds(block: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "BLOCK", block)
    rng = random.Random(1)
    words = "".join(rng.choices("ab cé\n☃", k=2000)) + VERSES + "a" * 50
    text = as_text(words, dtype)
    samples = [
        "",
        "a",
        words[:PIECE],
        words[-PIECE:],
        words[5 : 5 + PIECE - 1],
        "a" * 70,
        words[:40] + "€" + words[90:130],
    ]
    for _ in range(20):
        cuts = [(rng.randrange(len(words)), rng.randrange(3, 45)) for _ in range(3)]
        samples.append("".join(words[at : at + length] for at, length in cuts))
    assert text.compare(samples) == [by_hand(words, sample) for sample in samples]


def test_pieces_from_different_places_are_not_one_run() -> None:
    first, second = "abcdefghijklmnopqrst", "bcdefghijklmnopqrstu"
    (found,) = as_text(f"{first}#{second}").compare([first + "u"])
    assert found == Copied(pieces=2, copied=2, longest_chars=20)
    assert found.share == 1


def test_a_sample_shorter_than_a_piece_has_no_share() -> None:
    assert as_text(VERSES).compare(["the cat"])[0].share is None
    assert as_text("tiny").compare(["the cat sat on the mat"]) == [Copied(3, 0, 0)]
    assert as_text(VERSES).compare([]) == []


def test_a_long_text_takes_seconds_and_no_copy_of_it() -> None:
    """Ten million characters in far less than a second on a quiet machine."""
    text = TrainingText(
        np.random.default_rng(0).integers(0, 60, 10_000_000, np.uint8),
        Vocabulary(VERSES[:0] + "".join(map(chr, range(40, 100)))),
    )
    sample = text.vocabulary.decode(text.ids[5_000_000:5_000_500])
    began = time.monotonic()
    assert text.compare([sample]) == [Copied(481, 481, 500)]
    assert time.monotonic() - began < 10


# -- as the command line tells it


@pytest.fixture
def run(copy_run: Callable[..., None], text: Path) -> Path:
    copy_run(30)
    return text


def test_novelty_is_told_on_stderr_after_the_sample(charlstm: Program, run: Path) -> None:
    plain = charlstm("sample", "--length", 100, "--seed", 1)
    told = charlstm("sample", "--length", 100, "--seed", 1, "--novelty")
    assert told.out == plain.out
    assert re.fullmatch(r"novelty: none of its 20-character .*\n", told.err.split("\n", 1)[1])
    short = charlstm("sample", "--length", 5, "--seed", 1, "--novelty")
    assert "shorter than 20 characters" in short.err
    several = charlstm("sample", "--length", 50, "--seed", 4, "-n", 2, "--novelty", "-q").err.splitlines()
    assert [line.split(":")[0] for line in several] == ["novelty of seed 4", "novelty of seed 5"]


def test_what_is_copied_is_told_with_its_longest_run(
    charlstm: Program, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from charlstm.inference import sampling

    text = VERSES[8:49] + "qqqqqqqqqqqqqqqqqqq"  # 41 characters, and 19 others
    monkeypatch.setattr(sampling, "generate", lambda *_: iter([[c] for c in text]))
    told = charlstm("sample", "--length", len(text), "--seed", 1, "--novelty", "--prompt", VERSES[:8])
    assert re.fullmatch(r"novelty: 53\.7 % of its 20-character .* 41 characters\n", told.err.split("\n", 1)[1])
    facts = json.loads(charlstm("sample", "--length", len(text), "--seed", 1, "--novelty", "--json").out)
    assert facts["novelty"] == {
        "piece_chars": 20, "pieces": 41, "copied_pieces": 22, "copied_share": 22 / 41, "longest_copied_chars": 41
    }  # fmt: skip
    assert "novelty" not in json.loads(charlstm("sample", "--length", 9, "--seed", 1, "--json").out)


def test_what_was_held_out_is_not_training_text(charlstm: Program, folder: Path) -> None:
    from charlstm import api

    words = "".join(random.Random(2).choices("abcdefgh ", k=3000))
    (folder / "noise.txt").write_text(words, encoding="utf-8")
    assert charlstm("train", "noise.txt", "--steps", 2, *SMALL).status == 0
    found = api.load("noise").training_text().compare([words[100:200], words[-100:]])
    assert [copied.share for copied in found] == [1, 0]


def test_a_text_that_cannot_be_compared_with_is_one_sentence_before_anything_is_written(
    charlstm: Program, run: Path, folder: Path
) -> None:
    run.write_text(run.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    changed = charlstm("sample", "--novelty")
    assert (changed.status, changed.out) == (2, "")
    assert "has changed" in changed.sentence
    run.unlink()
    gone = charlstm("sample", "--novelty")
    assert (gone.status, gone.out) == (2, "")
    assert "verses.txt" in gone.sentence
    endless = charlstm("sample", "--novelty", "--length", 0)
    assert endless.status == 2
    assert "--length" in endless.sentence


def test_a_text_from_standard_input_cannot_be_compared_with(
    charlstm: Program, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "STDIN", str(run))
    told = charlstm("sample", "--novelty")
    assert told.status == 2
    assert "standard input" in told.sentence


def test_the_built_in_model_can_be_compared(charlstm: Program, folder: Path) -> None:
    told = charlstm("sample", "--length", 300, "--temp", 0.2, "--seed", 1, "--novelty")
    assert told.status == 0
    assert re.search(r"^novelty: .* the training text", told.err, re.MULTILINE)


def test_the_part_of_a_word_at_the_end_of_a_line_is_known() -> None:
    passages = novelty.Passages(as_text("the mice met a cat\nand Ann's cats"), 5)
    for line, cut in (
        ("a ca", True),
        ("a cat", False),
        ("the mic", True),
        ("a dog", False),
        ("@mic", False),
        ("mi.", False),
    ):
        assert passages.cut_off(line) == cut, line


def test_passages_of_any_length_are_found() -> None:
    text = as_text(VERSES)
    for chars in (1, 2, 3, 5, 20, 31, 64):
        passages = novelty.Passages(text, chars)
        assert passages.occur_in("#" + VERSES[40 : 40 + chars])
        assert not passages.occur_in(VERSES[40 : 40 + chars - 1] + "#")
