"""Which weights a run begins with: those of the base where it suits the text, those of a run, or random ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from charlstm import api
from charlstm.inference import evaluation, marks
from charlstm.nn.config import ModelSize
from charlstm.settings import DEFAULT_MINUTES, PRETRAINED_MINUTES, Budget, TrainConfig, default_budget
from charlstm.storage import checkpoint, pretrained
from charlstm.text import corpus
from charlstm.text.vocabulary import Vocabulary
from charlstm.training import autoconfig, budget, loop, state
from charlstm.training.data_parallel import DataParallel
from tests.conftest import SMALL, VERSES, Result, slow, spawn
from tests.experiments.pack import pack

FEW = ("--steps", "2", "--batch", "4", "--seq", "10", "--preview-every", "0")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 24 cells that has learned the verses."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "base.txt").write_text(VERSES * 20, encoding="utf-8")
    options = {"hidden": 24, "layers": 1, "dropout": 0, "batch": 4, "seq": 10, "init_from": "none"}
    list(api.train(folder / "base.txt", steps=300, checkpoints=folder, preview_every_s=0, **options))
    return folder / "base.best.npz"


@pytest.fixture
def base(learned: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That model in the place of the shipped one, in float16 as that is."""
    path = folder / "english.npz"
    pack(learned, path)
    monkeypatch.setattr(pretrained, "bundled_path", lambda _, name: folder / name)
    return path


def started_from(name: str) -> str | None:
    found = checkpoint.load(Path("checkpoints", f"{name}.npz")).pretrained
    return found.name if found else None


def test_a_text_that_the_base_predicts_begins_with_it(charlstm: Callable[..., Result], base: Path, text: Path) -> None:
    result = charlstm("train", text, *FEW)
    assert result.status == 0
    assert "starts from the base 'english'" in result.err
    assert started_from("verses") == "english"
    made, given = checkpoint.load(Path("checkpoints/verses.npz")), checkpoint.load(base)
    assert made.char_model.config.hidden == given.char_model.config.hidden
    facts = json.loads(charlstm("info", "verses", "--json").out)
    assert facts["pretrained"]["name"] == "english"
    share = checkpoint.load_run(Path("checkpoints/verses.npz")).start_share
    assert facts["start_share"] == share > 0
    assert f"from the weights of english, which are {share:.0%} of the average" in charlstm("info", "verses").out
    assert charlstm("resume", "verses", "--steps", 4).status == 0
    assert started_from("verses") == "english"


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("쪽빛 하늘 아래 작은 마을이 있었다.\n" * 60, "knows"),
        ("zqxv jjkw qqzz vvxk\n" * 100, "letter frequencies"),
    ],
)
def test_a_text_that_it_does_not_suit_begins_with_random_weights(
    charlstm: Callable[..., Result], base: Path, content: str, because: str
) -> None:
    Path("other.txt").write_text(content + "thedogsat", encoding="utf-8")
    result = charlstm("train", "other.txt", *FEW)
    assert result.status == 0
    assert "starts from random weights" in result.err
    assert because in result.err
    assert started_from("other") is None


@pytest.mark.parametrize("words", [("--init-from", "none"), ("--hidden", "23")])
def test_who_wants_random_weights_or_a_smaller_model_gets_them(
    charlstm: Callable[..., Result], base: Path, text: Path, words: tuple[str, ...]
) -> None:
    assert charlstm("train", text, *FEW, *words).status == 0
    assert started_from("verses") is None


def test_it_must_predict_a_text_better_than_letter_frequencies_by_a_margin(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = corpus.read([str(text)])
    for nats, suits in ((1.0, True), (1.6, False), (2.4, False), (4.0, False)):
        monkeypatch.setattr(evaluation, "evaluate", lambda *_, nats=nats: nats)
        monkeypatch.setattr(evaluation, "unigram_nats", lambda *_: 2.0)
        weights, why = pretrained.for_text(found, found.ids, {})
        assert (weights is not None) == suits
        assert "letter frequencies" in why


def test_the_base_grows_to_the_size_that_text_and_budget_are_enough_for(
    charlstm: Callable[..., Result], base: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoconfig, "PRETRAINED_CHARS_PER_PARAMETER", 0.0)
    monkeypatch.setattr(autoconfig, "PARAMETERS_PER_CHAR", 5.0)
    monkeypatch.setattr(autoconfig, "SIZES", ((1, 8), (1, 32), (1, 512)))
    assert charlstm("train", text, *FEW).status == 0
    assert started_from("verses") == "english"
    made = checkpoint.load(Path("checkpoints/verses.npz")).char_model
    assert (made.config.layers, made.config.hidden) == (1, 32)


def test_a_text_that_teaches_as_much_as_the_base_is_learned_without_it(
    charlstm: Callable[..., Result], base: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoconfig, "ENOUGH_CHARS", 70)
    assert "enough to learn as much without the base" in charlstm("train", text, *FEW).err  # reads 80 characters
    assert started_from("verses") is None


def test_long_texts_that_are_read_whole_teach_as_much_as_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoconfig, "speed", lambda threads: 1e11 * threads)
    for chars, minutes, enough in ((10**6, 600, False), (5 * 10**6, 15, True), (10**8, 20, True), (10**8, 0.5, False)):
        assert autoconfig.is_enough(chars, 65, Budget(minutes=minutes), {}, 2) == enough, (chars, minutes)


def test_a_model_from_the_base_is_never_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoconfig, "speed", lambda threads: 1e11 * threads)
    shipped = ModelSize(hidden=384, layers=1)
    for chars, minutes, size in ((40_000, 60, (1, 384)), (1_000_000, 1, (1, 384)), (10**7, 60, (1, 1024))):
        found = autoconfig.choose(chars, 65, Budget(minutes=minutes), {}, 2, shipped).settings
        assert (found["layers"], found["hidden"]) == size, (chars, minutes)
    found = autoconfig.choose(40_000, 65, Budget(minutes=1), {"layers": 2}, 2, shipped).settings
    assert (found["layers"], found["hidden"]) == (2, 384)


@pytest.mark.parametrize("words", [("--hidden", "32"), ("--layers", "2"), ("--hidden", "24", "--layers", "1")])
def test_a_size_that_holds_the_base_begins_with_it(
    charlstm: Callable[..., Result], base: Path, text: Path, words: tuple[str, ...]
) -> None:
    assert charlstm("train", text, *FEW, *words).status == 0
    assert started_from("verses") == "english"


def test_a_text_that_the_base_has_read_is_told_of(
    charlstm: Callable[..., Result], base: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marks, "ONE_IN_BITS", 3)
    half, other = VERSES * 20, "".join(f"the {n} sat on the dog and the cat " for n in ("bird", "man", "sun") * 300)
    for read, expected in ((half, True), (other, False)):
        vocabulary = Vocabulary("".join(sorted(set(read))))
        np.save(base.with_name("english.marks.npy"), marks.marks(vocabulary.encode(read), vocabulary))
        result = charlstm("train", text, *FEW, "--if-exists", "overwrite")
        assert ("flatters the held-out loss" in result.err) == expected


def test_the_base_can_be_named_for_any_text(charlstm: Callable[..., Result], folder: Path) -> None:
    Path("digits.txt").write_text("0123456789\n" * 60, encoding="utf-8")
    assert charlstm("train", "digits.txt", "--init-from", "english", *FEW).status == 0
    assert started_from("digits") == "english"


def test_held_out_text_has_no_say(charlstm: Callable[..., Result], base: Path) -> None:
    Path("tail.txt").write_text(VERSES * 20 + "쪽빛 하늘 아래\n" * 50, encoding="utf-8")
    charlstm("train", "tail.txt", *FEW, "--val-fraction", "0.2")
    assert started_from("tail") == "english"


def test_without_a_budget_trained_weights_get_less_time(
    charlstm: Callable[..., Result], base: Path, text: Path
) -> None:
    charlstm("train", text, *FEW)
    assert budget.default_budget(checkpoint.load_run(Path("checkpoints/verses.npz")))[0] == PRETRAINED_MINUTES
    assert default_budget(2_000_000, pretrained=True)[0] == DEFAULT_MINUTES  # less would be the first epochs alone


def test_the_base_is_half_as_large_and_nearly_the_same(base: Path, learned: Path) -> None:
    whole = checkpoint.load(learned)
    half = checkpoint.load(base)
    for name, p in whole.char_model.params.items():
        assert half.char_model.params[name].dtype == np.float32
        np.testing.assert_allclose(half.char_model.params[name], p, rtol=1e-3, atol=1e-6)
    assert half.bytes < 0.75 * whole.bytes


def test_a_run_that_knows_more_characters_than_its_text_resumes_exactly(
    charlstm: Callable[..., Result], text: Path
) -> None:
    Path("more.txt").write_text("ABC {}~|\n" * 99 + VERSES, encoding="utf-8")
    assert charlstm("train", "more.txt", "--steps", 2, *SMALL).status == 0
    options = ("train", text, "--steps", 20, "--batch", 4, "--seq", 10, "--preview-every", 0, "--init-from", "more")
    assert charlstm(*options, "--name", "whole").status == 0
    stop, half = api.Stop(), {"init_from": "more", "name": "half", "batch": 4, "seq": 10, "steps": 20}
    for event in api.train(text, stop=stop, preview_every_s=0, **half):
        if event.step == 7:
            stop.reason = "enough"
    assert checkpoint.load(Path("checkpoints/half.npz")).step == 7
    assert charlstm("resume", "half").status == 0
    whole, half_done = (checkpoint.load(Path("checkpoints", f"{name}.npz")) for name in ("whole", "half"))
    for name, p in whole.char_model.params.items():
        np.testing.assert_array_equal(half_done.char_model.params[name], p)
    assert Path("checkpoints/half.npz").read_bytes() == Path("checkpoints/whole.npz").read_bytes()


# -- the share of the pretrained weights in the average


def evaluated(text: corpus.Corpus, weights: state.Pretrained, losses: Iterator[float]) -> state.TrainState:
    """A run of four steps, each of which is evaluated: with the losses given, of the average and of another share by turns."""
    run, _ = state.begin(text, TrainConfig(hidden=24, batch=4, seq=10), 1, weights)
    train_ids, val_ids = text.split(0.1)
    run.schedule.end(4, 1, 40, len(val_ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataParallel, "held_out_loss", lambda *_: next(losses))
        list(loop.train(run, train_ids, val_ids))
    return run


def test_the_average_gets_the_share_of_the_pretrained_weights_that_predicts_best(base: Path, text: Path) -> None:
    weights, _ = pretrained.for_text(read := corpus.read([str(text)]), read.ids, {})
    assert weights is not None
    read, _ = read.joined(weights.model.vocabulary)
    # By turns a larger and a smaller share is tried: at first 0.2 and 0. None can be smaller than 0.
    plain = evaluated(read, weights, iter([2.0, 3.0, 2.0, 1.9, 2.0, 2.0, 2.0]))
    assert (plain.start_share, plain.best_val_nats) == (0.0, 1.9)
    mixed = evaluated(read, weights, iter([2.0, 1.9, 1.8, 1.9, 1.7, 1.6, 1.5, 1.4]))
    assert mixed.start_share == 0.2
    assert [row.val_nats for row in mixed.history] == [1.9, 1.8, 1.6, 1.4]
    for name, start in mixed.start.items():
        np.testing.assert_allclose(mixed.averaged[name], 0.8 * plain.averaged[name] + 0.2 * start, rtol=1e-4, atol=1e-6)


def test_without_a_held_out_text_or_pretrained_weights_there_is_no_share(base: Path, text: Path) -> None:
    weights, _ = pretrained.for_text(read := corpus.read([str(text)]), read.ids, {})
    read, _ = read.joined(weights.model.vocabulary)  # type: ignore[union-attr]
    for fraction, start, expected in ((0.1, weights, 0.1), (0.0, weights, 0.0), (0.1, None, 0.0)):
        run, _ = state.begin(read, TrainConfig(hidden=24, batch=4, seq=10, val_fraction=fraction), 1, start)
        assert (run.start_share, bool(run.start)) == (expected, expected > 0)


# -- a text that grows


def test_update_resumes_an_unchanged_text_and_otherwise_keeps_the_weights(
    charlstm: Callable[..., Result], folder: Path, text: Path
) -> None:
    first = charlstm("train", text, *FEW, "--hidden", 8, "--if-exists", "update")
    assert first.status == 0
    assert started_from("verses") is None
    again = charlstm("train", text, *FEW, "--steps", 4, "--if-exists", "update")
    assert again.status == 0
    assert checkpoint.load(Path("checkpoints/verses.npz")).step == 4
    assert started_from("verses") is None
    text.write_text(VERSES * 22, encoding="utf-8")
    grown = charlstm("train", text, *FEW, "--if-exists", "update", "--lr", "1e-9")
    assert grown.status == 0
    assert "characters were appended" in grown.err
    made = checkpoint.load(Path("checkpoints/verses.npz"))
    assert (made.step, made.text.chars, started_from("verses")) == (2, len(VERSES) * 22, "verses")
    assert made.char_model.config.hidden == 8


def test_update_reads_a_text_as_the_run_did_or_as_it_is_told(charlstm: Callable[..., Result], folder: Path) -> None:
    table = folder / "table.csv"
    table.write_text("text,body\n" + "a first line,and another one\n" * 40)
    words = ("train", table, *FEW, "--hidden", 8, "--if-exists", "update", "--init-from", "none")
    for options, field in ((["--field", "text"], "text"), ([], "text"), (["--field", "body"], "body")):
        table.write_text(table.read_text() + "more of it,more of that\n")
        assert charlstm(*words, *options).status == 0
        assert checkpoint.load(Path("checkpoints/table.npz")).text.field == field
    table.write_bytes(table.read_bytes() + b"caf\xe9,caf\xe9\n")
    assert charlstm(*words, "--encoding", "cp1252").status == 0


@slow
def test_update_takes_a_text_from_standard_input(folder: Path) -> None:
    for content in (VERSES * 20, VERSES * 20, VERSES * 21):
        job = spawn(
            "train", "-", "--name", "piped", "--if-exists", "update", *FEW, "--init-from", "none", cwd=folder, stdin=-1
        )
        _, told = job.communicate(content.encode())
        assert job.returncode == 0, told
    assert checkpoint.load(folder / "checkpoints" / "piped.npz").text.chars == len(VERSES) * 21
