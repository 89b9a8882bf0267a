"""`eval` and `--init-from`: what a run knows of a text that it was not trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlstm import launch
from charlstm.inference import evaluation
from charlstm.nn.stepper import Stepper
from charlstm.settings import LEARNING_RATES, TrainConfig
from charlstm.storage import checkpoint
from charlstm.text.vocabulary import Vocabulary
from charlstm.training import autoconfig, loop, state
from tests.conftest import SMALL, VERSES, Result, sweep


@pytest.fixture
def run(copy_run: Callable[..., None]) -> str:
    copy_run(60)
    return "verses"


def by_hand(folder: Path, text: str, context: int = 0) -> float:
    """Character by character, one stream, from a zero state; `context` forgets every so many characters."""
    writer = checkpoint.load(folder / "checkpoints" / "verses.best.npz").char_model
    ids, total = writer.vocabulary.encode(text), 0.0
    for k in range(len(ids) - 1):
        if k == 0 or (context and k % context == 0):
            stepper = Stepper(writer.params, writer.config, 1)
        logits = stepper.step(ids[k : k + 1])[:, 0].astype(float)
        total += math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[ids[k + 1]]
    return total / (len(ids) - 1)


@pytest.mark.parametrize("context", [0, 1, 7, 50, 10_000])
def test_eval_tells_what_reading_character_by_character_tells(
    charlstm: Callable[..., Result], folder: Path, run: str, context: int
) -> None:
    Path("new.txt").write_text(VERSES[::-1][:150], encoding="utf-8")
    told = json.loads(charlstm("eval", run, "new.txt", "--json", "--context", context).out)
    assert told["chars"] == 149
    assert told["nats_per_char"] == pytest.approx(by_hand(folder, VERSES[::-1][:150], context), rel=1e-4)
    assert told["bits_per_char"] == pytest.approx(told["nats_per_char"] / math.log(2))
    assert told["uniform_nats"] == pytest.approx(math.log(len(set(VERSES))))


def test_eval_in_words_is_one_line_on_stdout(charlstm: Callable[..., Result], text: Path, run: str) -> None:
    result = charlstm("eval", run, text)
    assert result.status == 0
    assert "nats" in result.out
    assert "bits" in result.out
    assert result.out.count("\n") == 1
    assert result.err == ""


def test_a_long_text_is_read_in_streams_and_each_character_once(folder: Path) -> None:
    config = evaluation.model.ModelConfig(9, hidden=4)
    params = evaluation.model.init(config, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 9, 5003)
    for context in (0, 3, 64):
        places = [p for p, _ in evaluation.char_nll(params, config, ids, *evaluation.streams_of(5002, context))]
        assert sorted(np.concatenate(places).tolist()) == list(range(1, 5003))


def test_unknown_characters_are_named_and_can_be_left_out(charlstm: Callable[..., Result], run: str) -> None:
    Path("new.txt").write_text("the cat sät", encoding="utf-8")
    refused = charlstm("eval", run, "new.txt")
    assert refused.status == 2
    assert "'ä' (U+00E4)" in refused.err
    assert "--unknown skip" in refused.err
    told = json.loads(charlstm("eval", run, "new.txt", "--unknown", "skip", "--json").out)
    assert (told["chars"], told["left_out"]) == (9, 1)


def test_a_text_with_nothing_to_predict_is_refused(charlstm: Callable[..., Result], run: str) -> None:
    Path("new.txt").write_text("ää\n", encoding="utf-8")
    assert charlstm("eval", run, "new.txt", "--unknown", "skip").status == 2


def test_show_writes_the_text_itself_and_nothing_that_drives_a_terminal(
    charlstm: Callable[..., Result], run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("new.txt").write_text("the dog sat\non the mat", encoding="utf-8")
    plain = charlstm("eval", run, "new.txt", "--show").out
    assert plain.startswith("the dog sat\non the mat\n")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in charlstm("eval", run, "new.txt", "--show").out


# -- weights from another run


def test_weights_from_a_run_begin_where_it_ended(charlstm: Callable[..., Result], folder: Path, run: str) -> None:
    Path("more.txt").write_text(VERSES * 12 + "ÄÖ!" * 20 + VERSES * 3, encoding="utf-8")
    result = charlstm("train", "more.txt", "--init-from", run, "--steps", 1, "--batch", 4, "--seq", 10, "--lr", 1e-9)
    assert result.status == 0
    assert "other 3" in result.err
    made = checkpoint.load(folder / "checkpoints" / "more.npz").char_model
    pretrained = checkpoint.load(folder / "checkpoints" / "verses.best.npz").char_model
    assert set(made.vocabulary.characters) == set(pretrained.vocabulary.characters) | set("ÄÖ!")
    text = VERSES[:120]
    losses = [
        evaluation.evaluate(writer.params, writer.config, writer.vocabulary.encode(text))
        for writer in (made, pretrained)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.12)  # the new characters take a little probability


def test_weights_from_a_run_are_trained_at_a_lower_rate_unless_one_is_given(
    charlstm: Callable[..., Result], text: Path, run: str
) -> None:
    options = ("--init-from", run, "--steps", 1, "--if-exists", "overwrite", "--name", "tuned", "--display", "json")
    for more, expected in (((), autoconfig.PRETRAINED_RATES[0][1] * LEARNING_RATES["muon"]), (("--lr", 0.003), 0.003)):
        started = json.loads(charlstm("train", text, *options, *SMALL[2:], *more).out.splitlines()[0])
        assert started["lr"] == pytest.approx(expected)


def test_characters_that_only_the_run_knows_are_kept(charlstm: Callable[..., Result], folder: Path, run: str) -> None:
    Path("few.txt").write_text("the cat sat\n" * 80, encoding="utf-8")
    assert charlstm("train", "few.txt", "--init-from", run, "--steps", 2, "--batch", 4, "--seq", 10).status == 0
    made = checkpoint.load(folder / "checkpoints" / "few.npz").char_model
    assert set(made.vocabulary.characters) == set(VERSES)


def test_a_size_that_the_weights_do_not_have_is_refused(charlstm: Callable[..., Result], text: Path, run: str) -> None:
    result = charlstm("train", text, "--name", "other", "--init-from", run, "--hidden", 9, "--steps", 1)
    assert result.status == 2
    assert "--hidden 9" in result.err


def test_grafting_with_an_embedding_moves_its_rows() -> None:
    config, wider = (evaluation.model.ModelConfig(V, 3, hidden=4, layers=2) for V in (5, 7))
    pretrained = evaluation.model.init(config, np.random.default_rng(0))
    pretrained["out.b"][:] = [0.5, -2.0, 1.0, 0.0, 3.0]
    ours = evaluation.model.init(wider, np.random.default_rng(1))
    places = np.array([1, 2, 3, 5, 6])
    evaluation.model.load_pretrained(ours, pretrained, places)
    np.testing.assert_array_equal(ours["embed.E"][places], pretrained["embed.E"])
    np.testing.assert_array_equal(ours["out.P"], pretrained["out.P"])
    np.testing.assert_array_equal(ours["layer2.U"], pretrained["layer2.U"])
    assert ours["out.b"][0] == pretrained["out.b"].min()


def test_ids_of_one_vocabulary_become_those_of_another() -> None:
    ids, left_out = Vocabulary("acd").translate(np.array([0, 1, 2, 2], np.uint8), Vocabulary("abc"))
    assert (ids.tolist(), left_out) == ([0, 1, 1], ["b"])


# -- a state that does not drift, and an end in time


@pytest.mark.parametrize("passes", sweep([8, 40], 8))
def test_no_cell_exceeds_the_characters_between_two_fresh_starts(text: Path, passes: int) -> None:
    """A step adds less than one to |c|."""
    from charlstm import events
    from charlstm.text import corpus

    config = TrainConfig(hidden=12, batch=2, seq=16, lr=0.05)
    found = corpus.read([str(text)])
    run, _ = state.begin(found, config)
    windows = (len(found.split(0.1)[0]) - 1) // (2 * 16)
    run.schedule.end(passes * windows, 0, 32, 400)
    cells = [e.cell_max for e in loop.train(run, *found.split(0.1)) if isinstance(e, events.Progress)]
    assert run.cursor.epoch == passes
    assert max(cells) < loop.RESET_CHARS


def test_training_ends_when_the_held_out_loss_has_turned_for_good(
    charlstm: Callable[..., Result], folder: Path
) -> None:
    """Random characters: all there is to learn of them is learned by heart."""
    rng = np.random.default_rng(0)
    Path("noise.txt").write_text("".join(rng.choice(list("abcdefgh\n"), 1500)), encoding="utf-8")
    options = ("--hidden", 64, "--dropout", 0, "--batch", 4, "--seq", 16, "--lr", 0.01, "--preview-every", 0)
    result = charlstm("train", "noise.txt", "--steps", 4000, *options)
    assert result.status == 0
    assert "stopped early" in result.err
    assert "overfits" in result.err
    assert "--dropout" in result.err
    told = json.loads(charlstm("info", "noise", "--json").out)
    assert told["step"] < 4000
    again = charlstm("resume", "noise")
    assert again.status == 0
    assert "finished" in again.err


def test_no_more_than_a_million_characters_are_held_out_unless_asked_for(
    charlstm: Callable[..., Result], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(launch, "MOST_HELD_OUT", 100)
    options = ("--steps", 1, "--if-exists", "overwrite", "--display", "json", *SMALL)
    for more, expected in (((), 100), (("--val-fraction", 0.1), 406)):
        started = json.loads(charlstm("train", text, *options, *more).out.splitlines()[0])
        assert started["val_chars"] == pytest.approx(expected, abs=1)
