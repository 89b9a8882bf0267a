"""What is chosen when the user gives a budget and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm import launcher
from charlstm.nn import model
from charlstm.nn.config import ModelConfig, embedding_for
from charlstm.settings import Budget, TrainConfig
from charlstm.text import corpus
from charlstm.training import autoconfig, pace
from charlstm.training.autoconfig import choose
from tests.conftest import VERSES


@pytest.fixture(autouse=True)
def speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is always as fast."""
    monkeypatch.setattr(autoconfig, "speed", lambda threads: 1e11 * threads)


def size(chars: int, budget: Budget, **overrides: Any) -> int:
    found = choose(chars, 65, budget, overrides, 2).settings
    TrainConfig(**found)
    return autoconfig.parameters(found["layers"], found["hidden"], 65)


def test_more_time_gives_a_larger_model() -> None:
    sizes = [size(10**6, Budget(minutes=m)) for m in (0.05, 0.5, 5, 50)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 3


def test_more_than_256_cells_need_fewer_characters_per_parameter_of_a_text_that_is_read_twice() -> None:
    def chosen(cells: int, chars_per_parameter: float, chars: int = 10**6) -> int:
        steps = int(chars_per_parameter * autoconfig.weights(1, cells, 65) / 2048)
        return int(choose(chars, 65, Budget(steps=steps), {}, 2).settings["hidden"])

    assert [chosen(256, 4.9, 5 * 10**5), chosen(256, 5.1, 5 * 10**5)] == [192, 256]
    assert [chosen(384, 2.9), chosen(384, 3.1)] == [256, 384]
    assert [chosen(384, 4.9, 2 * 10**6), chosen(384, 5.1, 2 * 10**6)] == [256, 384]  # not read twice


def test_a_small_text_gets_a_small_model_however_long_it_is_trained() -> None:
    assert size(3000, Budget(minutes=600)) == autoconfig.parameters(*autoconfig.SIZES[0], 65)
    assert size(200_000, Budget(minutes=600)) < 1.5 * 200_000 < size(10**6, Budget(minutes=600))


def test_dropout_grows_with_epochs_and_deep_models_need_less() -> None:
    rates = [[autoconfig.dropout_for(epochs, layers) for epochs in (1, 4, 8, 16, 100)] for layers in (1, 2)]
    assert all(rate == sorted(rate) and rate[0] == 0 < rate[1] for rate in rates)
    assert all(deep < single for single, deep in list(zip(*rates, strict=True))[1:])


def test_the_best_of_several_speed_measurements_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of the fixture
    measured = iter([[5e9, 6e9], [80e9, 90e9], [7e9, 8e9], [1e9, 1e9]])
    monkeypatch.setattr(autoconfig.ThreadPool, "map", lambda self, job, parts: next(measured))
    assert autoconfig.speed.__wrapped__(2) == 170e9


def test_cores_that_the_batch_has_no_streams_for_are_no_speed() -> None:
    four, many = (choose(6 * 10**6, 65, Budget(minutes=0.5), {}, cores).settings for cores in (4, 64))
    assert four == many


def test_a_text_shorter_than_a_window_is_read_once_a_step() -> None:
    assert "(about 10 epochs)" in choose(257, 65, Budget(steps=10), {"hidden": 64}, 2).why


def test_a_text_that_is_read_often_gets_dropout_and_one_that_is_not_gets_none() -> None:
    shares = [choose(chars, 65, Budget(minutes=5), {}, 2).settings["dropout"] for chars in (10**8, 10**6, 10**5)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] >= 0.3


def test_a_text_that_is_read_for_long_gets_a_second_layer_unless_cells_or_layers_were_given() -> None:
    assert choose(10**6, 65, Budget(minutes=20), {}, 2).settings["layers"] == 2
    assert (
        choose(10**7, 65, Budget(minutes=20), {}, 2).settings["layers"] == 1
    )  # as much work, but new text all the time
    for wish in ({"hidden": 384}, {"layers": 1}):
        assert choose(10**6, 65, Budget(minutes=20), wish, 2).settings["layers"] == 1


def test_two_layers_are_nearly_the_work_of_one() -> None:
    for one, two in autoconfig.DEEPER.items():
        assert 0.9 < autoconfig.work(*two, 65, 2048) / autoconfig.work(*one, 65, 2048) < 1.35, one


def test_what_the_user_gave_stands_and_is_not_said_to_be_chosen() -> None:
    found = choose(10**6, 65, Budget(minutes=5), {"hidden": 77, "dropout": 0.0}, 2)
    assert (found.settings["hidden"], found.settings["dropout"]) == (77, 0.0)
    assert "`layers`" in found.why
    assert not any(word in found.why for word in ("`hidden`", "`dropout`"))


def test_a_number_of_layers_that_was_given_gets_cells_from_few_to_many() -> None:
    few, many = (choose(10**7, 65, Budget(minutes=m), {"layers": 3}, 2).settings for m in (0.1, 100))
    assert few["layers"] == many["layers"] == 3
    assert few["hidden"] < many["hidden"]


def test_steps_and_epochs_are_chosen_for_without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(autoconfig, "speed")
    for budget in (Budget(steps=500), Budget(epochs=3.0)):
        assert choose(10**6, 65, budget, {}, 2).settings["hidden"] > 0


def test_a_very_large_vocabulary_gets_smaller_windows_unless_they_were_asked_for() -> None:
    found = choose(10**6, 65_536, Budget(steps=10), {}, 2).settings
    assert found["batch"] * found["seq"] * 65_536 <= autoconfig.LOGITS
    assert choose(10**6, 65_536, Budget(steps=10), {"batch": 32, "seq": 64}, 2).settings["seq"] == 64
    assert choose(10**6, 5387, Budget(steps=10), {}, 2).settings["batch"] == 32


@pytest.mark.parametrize("V", [65, 5387])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_size_is_that_of_the_model(V: int, layers: int) -> None:
    shape = ModelConfig(V, embedding_for(V), multiplicative=True, hidden=40, layers=layers)
    params = model.init(shape, np.random.default_rng(0))
    assert autoconfig.parameters(layers, 40, V) == sum(p.size for p in params.values())


def test_a_larger_model_is_more_work() -> None:
    ladder = [autoconfig.work(layers, hidden, 65, 2048) for layers, hidden in autoconfig.SIZES]
    assert ladder == sorted(ladder)


# -- the pace of the run's own first steps


def ticking(seconds: float) -> Callable[[], float]:
    """A clock on which each look takes this long."""
    times = itertools.count(0.0, seconds)
    return lambda: next(times)


@pytest.fixture
def long_text(folder: Path) -> corpus.Corpus:
    Path("long.txt").write_text(VERSES * 500, encoding="utf-8")
    return corpus.read(("long.txt",), cache=None)


def by_first_steps(text: corpus.Corpus, tick_s: float, budget: Budget, **overrides: Any) -> dict[str, Any]:
    wishes = {"batch": 4, "seq": 8, **overrides}
    return pace.choose_by_first_steps(text, text.ids, budget, wishes, 1, None, ticking(tick_s)).settings


def test_a_busy_machine_gets_a_smaller_model_than_its_matrix_products_suggest(long_text: corpus.Corpus) -> None:
    quick, slow = (by_first_steps(long_text, tick_s, Budget(minutes=600)) for tick_s in (0.4, 1e5))
    assert slow["hidden"] == autoconfig.SIZES[0][1] < quick["hidden"]
    assert slow["dropout"] < quick["dropout"]


def test_no_steps_are_taken_where_the_pace_decides_nothing(
    long_text: corpus.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pace, "first_steps")
    for budget in (Budget(steps=500), Budget(epochs=3.0)):
        assert (
            by_first_steps(long_text, 1.0, budget)
            == choose(len(long_text.ids), len(long_text.vocabulary), budget, {"batch": 4, "seq": 8}, 1).settings
        )
    wish = {"hidden": 64, "layers": 1, "dropout": 0.1}
    assert by_first_steps(long_text, 1.0, Budget(minutes=600), **wish).items() >= wish.items()


def test_first_steps_that_diverge_decide_nothing(long_text: corpus.Corpus) -> None:
    wild = {"lr": 1e38, "optimizer": "sgd", "clip": 0.0}
    sizes, wishes = (len(long_text.ids), len(long_text.vocabulary)), {"batch": 4, "seq": 8, **wild}
    first = choose(*sizes, Budget(minutes=600), wishes, 1).settings
    assert by_first_steps(long_text, 0.01, Budget(minutes=600), **wild) == first


# -- ranks


@pytest.mark.parametrize(("ranks", "batch", "lr"), [(1, 32, None), (2, 32, None), (4, 128, 0.035), (16, 512, 0.035)])
def test_many_ranks_get_a_larger_batch_and_a_higher_rate(
    monkeypatch: pytest.MonkeyPatch, ranks: int, batch: int, lr: float | None
) -> None:
    monkeypatch.setattr(launcher, "ranks", ranks)
    found = choose(10**8, 65, Budget(minutes=5), {}, ranks).settings
    assert (found["batch"], found.get("lr")) == (batch, pytest.approx(lr) if lr else None)
    assert choose(10**8, 65, Budget(minutes=5), {"batch": 64, "lr": 0.01}, ranks).settings["lr"] == 0.01
    assert "lr" not in choose(10**8, 65, Budget(minutes=5), {"optimizer": "adam"}, ranks).settings
    assert (
        choose(10**5, 65, Budget(minutes=5), {}, ranks).settings["batch"] == 32
    )  # an epoch of a short text has few steps
