"""A held-out text with a file of its own: what `--val-file` does in `train`, `resume`, `eval` and `info`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from charlstm import api, events
from charlstm.storage import checkpoint
from tests.conftest import SMALL, VERSES, Result

HELD_OUT = VERSES[::-1] * 3


@pytest.fixture
def valid(text: Path) -> Path:
    path = text.parent / "valid.txt"
    path.write_text(HELD_OUT, encoding="utf-8")
    return path


def trained(charlstm: Callable[..., Result], *more: object) -> Result:
    return charlstm("train", "verses.txt", "--val-file", "valid.txt", "--eval-every", 10, *SMALL, *more)


def test_the_text_is_trained_on_whole_and_the_file_is_held_out(charlstm: Callable[..., Result], valid: Path) -> None:
    told = trained(charlstm, "--steps", 20, "--display", "json").out.splitlines()
    started = json.loads(told[0])
    assert (started["chars"], started["val_chars"], started["val_text"]) == (
        len(VERSES) * 20,
        len(HELD_OUT),
        "valid.txt",
    )
    run = checkpoint.load_run(Path("checkpoints/verses.npz"))
    assert run.text.held_out is not None
    assert (run.text.held_out.sources, run.text.held_out.chars) == ((str(valid),), len(HELD_OUT))
    best = json.loads(told[-1])["best_val_nats"]
    for words in (("eval", "verses"), ("eval", "verses", "valid.txt")):
        assert json.loads(charlstm(*words, "--json").out)["nats_per_char"] == pytest.approx(best, rel=1e-5)
    facts = json.loads(charlstm("info", "verses", "--json").out)
    assert (facts["val_file"], facts["val_chars"], facts["val_fraction"]) == ([str(valid)], len(HELD_OUT), 0)
    assert f"held out: valid.txt, {len(HELD_OUT)} characters" in charlstm("info", "verses").out


def test_a_run_that_was_resumed_ends_in_the_same_bytes(charlstm: Callable[..., Result], valid: Path) -> None:
    trained(charlstm, "--name", "one", "--steps", 30)
    settings = {"hidden": 8, "batch": 4, "seq": 10, "eval_every": 10, "preview_every_s": 0}
    for event in api.train("verses.txt", name="two", val_file=valid, steps=30, **settings):
        if isinstance(event, events.Progress) and event.step == 15:
            break
    assert charlstm("resume", "two").status == 0
    one, two = (Path(f"checkpoints/{name}.npz").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_held_out_file_that_has_moved_or_changed(charlstm: Callable[..., Result], valid: Path) -> None:
    trained(charlstm, "--steps", 10)
    moved = valid.rename("elsewhere.txt")
    missing = charlstm("resume", "verses", "--steps", 20)
    assert missing.status == 2
    assert "--val-file PATH" in missing.sentence
    assert "verses" in charlstm("eval", "verses").sentence
    assert charlstm("resume", "verses", "--steps", 20, "--val-file", moved).status == 0
    both = charlstm("train", "verses.txt", moved, "--name", "verses", "--if-exists", "update")
    assert "can't be trained on and held out" in both.sentence
    moved.write_text(HELD_OUT + "and more", encoding="utf-8")
    changed = charlstm("resume", "verses", "--steps", 30)
    assert changed.status == 2
    assert "the held-out text of 'verses' has changed" in changed.sentence
    assert changed.sentence.endswith("--name verses --if-exists update'")  # which remembers it
    assert "--val-file verses.txt'" in charlstm(
        "resume", "verses", "--steps", 30, "--val-file", "verses.txt"
    ).sentence.replace(f"{valid.parent}/", "")
    again = charlstm("train", "verses.txt", "--val-file", moved, "--if-exists", "update", "--steps", 5, *SMALL[2:])
    assert again.status == 0
    assert "starts from the weights of 'verses'" in again.err


def test_characters_of_the_held_out_file_that_the_text_does_not_have(
    charlstm: Callable[..., Result], valid: Path
) -> None:
    valid.write_text(HELD_OUT + "Zoë", encoding="utf-8")
    refused = trained(charlstm, "--steps", 5)
    assert refused.status == 2
    assert "'Z' (U+005A), 'ë' (U+00EB) of --val-file: add --unknown skip" in refused.sentence
    done = trained(charlstm, "--steps", 5, "--unknown", "skip")
    assert done.status == 0
    assert "skipped 2 characters of --val-file" in done.err
    assert json.loads(charlstm("eval", "verses", "--json").out)["left_out"] == 2
    assert charlstm("resume", "verses", "--steps", 8).status == 0
    valid.write_text("ZZZ", encoding="utf-8")
    assert "at least two characters" in trained(charlstm, "--name", "x", "--unknown", "skip").sentence


def test_what_can_not_be_held_out(charlstm: Callable[..., Result], valid: Path) -> None:
    assert "valid.txt can't be trained on and held out" in charlstm("train", "*.txt", "--val-file", valid).sentence
    assert "can't be standard input" in charlstm("train", "verses.txt", "--val-file", "-").sentence
    assert "there is no text 'vali.txt'" in charlstm("train", "verses.txt", "--val-file", "vali.txt").sentence
    noted = trained(charlstm, "--steps", 2, "--val-fraction", 0.2)
    assert "ignored --val-fraction" in noted.err
    charlstm("train", "verses.txt", "--steps", 2, "--name", "tail", *SMALL)
    assert "leave out --val-file" in charlstm("resume", "tail", "--val-file", valid).sentence
    ignored = charlstm(
        "train", "verses.txt", "--name", "tail", "--val-file", valid, "--if-exists", "resume", "--steps", 4
    )
    assert "ignored --val-file" in ignored.err


def test_without_a_text_eval_reads_what_the_run_held_out(
    charlstm: Callable[..., Result], copy_run: Callable[..., None]
) -> None:
    copy_run(60)
    tail = (VERSES * 20)[-len(VERSES) * 2 :]
    Path("tail.txt").write_text(tail, encoding="utf-8")
    for more in ((), ("--context", 16), ("--limit", 50)):
        assert charlstm("eval", "verses", *more).out == charlstm("eval", "verses", "tail.txt", *more).out
    Path("verses.txt").write_text(VERSES, encoding="utf-8")
    assert "give the text to evaluate" in charlstm("eval", "verses").sentence


def test_a_run_that_started_from_a_model_with_more_characters_is_resumed_with_its_ids(
    charlstm: Callable[..., Result], text: Path
) -> None:
    Path("more.txt").write_text(VERSES.upper() * 5 + VERSES * 5, encoding="utf-8")
    assert charlstm("train", "more.txt", "--steps", 60, *SMALL).status == 0
    assert charlstm("train", text, "--init-from", "more", "--steps", 60, *SMALL[2:]).status == 0
    before = checkpoint.load_run(Path("checkpoints/verses.npz")).history[-1].loss_nats
    assert charlstm("resume", "verses", "--steps", 80).status == 0
    assert checkpoint.load_run(Path("checkpoints/verses.npz")).history[-1].loss_nats < before + 0.05
