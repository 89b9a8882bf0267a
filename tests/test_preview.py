"""Previews: what they begin with, and that a run does not notice them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm.settings import RunOptions, TrainConfig
from charlstm.text import corpus
from charlstm.training import state
from charlstm.training.control import Clock
from charlstm.training.preview import PROMPT_CHARS, Preview
from tests.conftest import SMALL, VERSES, Result


def previewing(path: Path, text: str) -> Preview:
    path.write_text(text, encoding="utf-8", newline="")
    found = corpus.read([str(path)], "utf-8")
    run, _ = state.begin(found, TrainConfig(hidden=4, batch=1, seq=5))
    return Preview(run, RunOptions(threads=1), found.ids, Clock())


@pytest.mark.parametrize(
    "text",
    [
        VERSES * 3,
        "short\nlines\n\n\n   \nand blank ones\n" * 9,
        "one long line of many words " * 90,
        "x" * 500 + "\n" + "y" * 500,
        "漢字" * 300 + "\n" + "  \n" * 30,
    ],
)
def test_a_prompt_is_a_line_of_the_text_or_its_beginning(folder: Path, text: str) -> None:
    preview = previewing(folder / "t.txt", text)
    lines = text.split("\n")
    for _ in range(200):
        prompt = preview._prompt()
        if prompt.endswith("\n"):
            assert prompt[:-1].strip() in [line.strip() for line in lines]
        elif prompt:
            assert any(line.lstrip().startswith(prompt) and len(line) > len(prompt) for line in lines)
        assert len(prompt) <= PROMPT_CHARS + 1
        assert not prompt or prompt.strip()


def test_a_text_of_one_line_has_no_prompts(folder: Path) -> None:
    assert previewing(folder / "t.txt", "no line end in it " * 50)._prompt() == ""


def test_previews_tell_their_prompt_and_change_no_byte_of_the_run(charlstm: Callable[..., Result], text: Path) -> None:
    ends, told = [], []
    for every in (0, 1e-9):
        result = charlstm(
            "train", text, "--steps", 40, "--display", "json", *SMALL[:-1], every, "--if-exists", "overwrite"
        )
        assert result.status == 0, result.err
        ends.append(Path("checkpoints/verses.npz").read_bytes())
        told.append([row for row in map(json.loads, result.out.splitlines()) if row["event"] == "sampled"])
    assert ends[0] == ends[1]
    assert not told[0]
    assert all(row["prompt"][:-1] in VERSES and row["prompt"].endswith("\n") for row in told[1] if row["new"])
    assert told[1]
