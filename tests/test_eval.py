"""`eval` and `--init-from`: what a run knows of a text that it was not trained on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charlstm import api, blas, launch
from charlstm.cli import scores
from charlstm.inference import adaptation, evaluation, scoring
from charlstm.nn import growth
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


def test_show_has_a_legend_and_a_form_without_colours(
    charlstm: Callable[..., Result], run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("new.txt").write_text("the dog sat\non the #mat", encoding="utf-8")
    show = ("eval", run, "new.txt", "--show", "--unknown", "skip")
    legend, first, marks, second, more, loss = charlstm(*show).out.splitlines()
    assert legend.startswith("nats per character: ' ' 0 to 0.5, '.' 0.5 to 1.5,")
    assert (first, second) == ("the dog sat", "on the mat")
    assert set(marks + more) <= set(" .:+#")
    assert len(marks) <= len(first) + 1, "the line end has a mark, too"
    assert "nats" in loss
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = charlstm(*show).out
    assert "\x1b[" in coloured
    assert coloured.count("\n") == 4, "no marks"
    monkeypatch.setenv("NO_COLOR", "1")
    assert ":" in charlstm(*show).out.splitlines()[2]


def test_marks_stand_below_wide_characters_and_tabs(charlstm: Callable[..., Result], text: Path) -> None:
    Path("wide.txt").write_text("在於形x\tz\n" * 30, encoding="utf-8")
    assert charlstm("train", "wide.txt", "--steps", 1, "--lr", 1e-9, *SMALL).status == 0
    _, line, marks, *_ = charlstm("eval", "wide", "wide.txt", "--show").out.splitlines()
    assert line == "在於形x z"
    assert (marks[:2], len(marks)) == ("  ", 6 + 1 + 1 + 1 + 1)


def test_show_as_json_is_values_and_nothing_else(charlstm: Callable[..., Result], run: str) -> None:
    Path("new.txt").write_text("the dog sat", encoding="utf-8")
    told = json.loads(charlstm("eval", run, "new.txt", "--show", "--json").out)
    assert told["text"] == "the dog sat"
    first, *others = told["char_nats"]
    assert first is None
    assert sum(others) / len(others) == pytest.approx(told["nats_per_char"], abs=1e-4)


def test_a_limit_leaves_out_the_rest_and_its_characters(charlstm: Callable[..., Result], run: str) -> None:
    Path("new.txt").write_text("the dog sät on the mat", encoding="utf-8")
    assert charlstm("eval", run, "new.txt").status == 2
    told = json.loads(charlstm("eval", run, "new.txt", "--limit", 9, "--json").out)
    Path("new.txt").write_text("the dog s", encoding="utf-8")
    assert told == json.loads(charlstm("eval", run, "new.txt", "--json").out)
    assert charlstm("eval", run, "new.txt", "--limit", -1).status == 2


def test_several_processes_read_what_one_reads(folder: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = api.load(run), VERSES * 40
    alone = model.score(text)
    one = np.zeros(len(text))
    for places, nats in alone:
        one[places] = nats
    monkeypatch.setattr(scoring, "PARALLEL_CHARS", 0)
    monkeypatch.setattr(blas, "cores", lambda: 3)
    several = np.zeros(len(text))
    for places, nats in model.score(text):
        several[places] = nats
    np.testing.assert_allclose(several, one, rtol=1e-3, atol=1e-5)
    assert model.evaluate(text) == pytest.approx(alone.mean_nats(), rel=1e-5)


def test_progress_is_shown_on_a_terminal_from_the_second_second(
    charlstm: Callable[..., Result], run: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert charlstm("eval", run, text).err == "", "it was done within a second"
    monkeypatch.setattr(scores, "PATIENCE_S", 0.0)
    assert "char/s" in charlstm("eval", run, text).err


@pytest.mark.filterwarnings("error")
def test_a_loss_that_is_not_finite_is_an_error(charlstm: Callable[..., Result], folder: Path, run: str) -> None:
    path = folder / "checkpoints" / "verses.best.npz"
    with np.load(path) as members:
        arrays = {
            name: np.where(a, a.dtype.type(3e38), a) if name.startswith("param/") else a for name, a in members.items()
        }
    np.savez(path, **arrays)
    Path("new.txt").write_text("the dog sat", encoding="utf-8")
    told = charlstm("eval", run, "new.txt")
    assert (told.status, told.out) == (1, "")
    assert "not a finite number" in told.sentence


def test_a_text_and_a_run_in_each_others_place_are_told_apart(
    charlstm: Callable[..., Result], text: Path, run: str
) -> None:
    told = charlstm("eval", text, run)
    assert told.status == 2
    assert f"type 'charlstm eval verses {text}'" in told.sentence


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


def test_a_size_that_the_weights_do_not_fit_into_is_refused(
    charlstm: Callable[..., Result], text: Path, run: str
) -> None:
    result = charlstm("train", text, "--name", "other", "--init-from", run, "--hidden", 7, "--steps", 1)
    assert result.status == 2
    assert "leave out --hidden 7, or use at least 8" in result.err


def test_grafting_with_an_embedding_moves_its_rows() -> None:
    config, wider = (evaluation.model.ModelConfig(V, 3, hidden=4, layers=2) for V in (5, 7))
    pretrained = evaluation.model.init(config, np.random.default_rng(0))
    pretrained["out.b"][:] = [0.5, -2.0, 1.0, 0.0, 3.0]
    ours = evaluation.model.init(wider, np.random.default_rng(1))
    places = np.array([1, 2, 3, 5, 6])
    growth.load_pretrained(ours, wider, pretrained, places)
    np.testing.assert_array_equal(ours["embed.E"][places], pretrained["embed.E"])
    np.testing.assert_array_equal(ours["out.P"], pretrained["out.P"])
    np.testing.assert_array_equal(ours["layer2.U"], pretrained["layer2.U"])
    assert ours["out.b"][0] == pretrained["out.b"].min()


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize(("layers", "more_layers", "cells"), [(1, 0, 0), (1, 2, 0), (1, 0, 3), (2, 1, 5)])
def test_a_model_grows_into_one_that_predicts_the_same(
    layers: int, more_layers: int, cells: int, embedding: int, multiplicative: bool
) -> None:
    model = evaluation.model
    small = model.ModelConfig(5, embedding, layers > 1, multiplicative, hidden=6, layers=layers)
    large = replace(
        small,
        vocabulary=7,
        hidden=6 + cells,
        layers=layers + more_layers,
        residual=layers + more_layers > 1,
        multiplicative=True,
    )
    given, ours = (model.init(config, np.random.default_rng(k), np.float64) for k, config in enumerate((small, large)))
    if multiplicative:
        given["layer1.M"] += np.random.default_rng(3).standard_normal(given["layer1.M"].shape)
    places = np.array([1, 2, 3, 5, 6])
    growth.load_pretrained(ours, large, given, places)
    ids = np.random.default_rng(2).integers(5, size=(9, 4))
    logits = []
    for config, params, read in ((small, given, ids), (large, ours, places[ids])):
        work = model.Workspace.empty(config, *ids.shape, np.float64)
        logits.append(model.forward(params, config, read, model.State.zero(config, 4, np.float64), work)[0])
    np.testing.assert_allclose(logits[1][places], logits[0], rtol=1e-12, atol=1e-12)
    grads = model.loss_and_gradients(
        ours, large, places[ids], places[ids], model.State.zero(large, 4, np.float64), work
    )[1]
    assert all(np.any(grads[f"{name}.W"]) for name in model.layer_names(large))  # and it learns from the first step


def test_ids_of_one_vocabulary_become_those_of_another() -> None:
    ids, left_out = Vocabulary("acd").translate(np.array([0, 1, 2, 2], np.uint8), Vocabulary("abc"))
    assert (ids.tolist(), left_out) == ([0, 1, 1], ["b"])


# -- a state that does not drift, and an end in time


@pytest.mark.parametrize("passes", sweep([4, 40], 4))
def test_no_cell_exceeds_the_characters_between_two_fresh_starts(text: Path, passes: int) -> None:
    """A step adds less than one to |c|."""
    from charlstm import events
    from charlstm.text import batches, corpus

    config = TrainConfig(hidden=12, batch=2, seq=16, lr=0.05)
    found = corpus.read([str(text)])
    run, _ = state.begin(found, config)
    windows = (len(found.split(0.1)[0]) - 1) // (2 * 16)
    run.schedule.end(passes * windows, 0, 32, 400)
    cells = [e.cell_max for e in loop.train(run, *found.split(0.1)) if isinstance(e, events.Progress)]
    assert run.cursor.epoch == passes
    assert max(cells) < batches.RESET_CHARS


def test_training_ends_when_the_held_out_loss_has_turned_for_good(
    charlstm: Callable[..., Result], folder: Path
) -> None:
    """Random characters: all there is to learn of them is learned by heart."""
    rng = np.random.default_rng(0)
    Path("noise.txt").write_text("".join(rng.choice(list("abcdefgh\n"), 1500)), encoding="utf-8")
    options = ("--hidden", 64, "--dropout", 0, "--batch", 4, "--seq", 16, "--lr", 0.01, "--preview-every", 0)
    result = charlstm("train", "noise.txt", "--steps", 2000, *options)
    assert result.status == 0
    assert "stopped early" in result.err
    assert "overfits" in result.err
    assert "--dropout" in result.err
    told = json.loads(charlstm("info", "noise", "--json").out)
    assert told["step"] < 2000
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


def test_adapting_learns_from_what_was_predicted_and_changes_nothing(
    charlstm: Callable[..., Result], folder: Path, run: str
) -> None:
    Path("new.txt").write_text("the hen fed the old man. " * 40, encoding="utf-8")
    files = {path: path.read_bytes() for path in Path("checkpoints").iterdir()}
    static, adapted = (json.loads(charlstm("eval", run, "new.txt", "--json", *more).out) for more in ((), ("--adapt",)))
    assert adapted["nats_per_char"] < static["nats_per_char"] - 0.05
    assert (adapted["chars"], adapted["adapt"], static["adapt"]) == (static["chars"], True, False)
    assert "dynamic evaluation" in charlstm("eval", run, "new.txt", "--adapt").out
    assert files == {path: path.read_bytes() for path in Path("checkpoints").iterdir()}
    refused = charlstm("eval", run, "new.txt", "--adapt", "--context", 16)
    assert refused.status == 2
    assert "--adapt and --context can't be combined" in refused.sentence
    first = adaptation.SEGMENT + 1  # predicted before the first step
    same = [
        json.loads(charlstm("eval", run, "new.txt", "--json", "--limit", first, *more).out)
        for more in ((), ("--adapt",))
    ]
    assert same[0]["nats_per_char"] == pytest.approx(same[1]["nats_per_char"], rel=1e-5)
