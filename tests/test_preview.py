"""Previews: what they begin with, and that a run does not notice them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm import events
from charlstm.settings import RunOptions, TrainConfig
from charlstm.text import corpus
from charlstm.training import state
from charlstm.training.control import Clock
from charlstm.training.preview import PROMPT_CHARS, Preview
from tests.conftest import SMALL, VERSES, Result


def previewing(path: Path, text: str) -> Preview:
    path.write_text(text, encoding="utf-8", newline="")
    found = corpus.read([str(path)])
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


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_previews_come_early(folder: Path, stream: bool) -> None:
    now = 100.0
    (folder / "t.txt").write_text(VERSES * 3)
    found = corpus.read(["t.txt"])
    run, _ = state.begin(found, TrainConfig(hidden=4, batch=1, seq=5))
    preview = Preview(run, RunOptions(stream_preview=stream), found.ids, lambda: now)
    began = []
    for tenth in range(450):
        now = 100.0 + tenth / 10
        event = events.Progress(tenth, None, 0.0, now - 100, 3.0, 0.5, 1e-3, 30.0, 2.0, 0.1, 0.01, 8e4, None)
        began += [sampled.step / 10 for sampled in preview.on_progress(event) if sampled.new]  # type: ignore[attr-defined]
    assert began == pytest.approx([1, 3, 6, 10, 20, 30, 40], abs=0.11)
