"""Temperature, top-k, top-p and the draw, on logits made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.nn import decoding

DRAWS = 40_000


def shares(logits: list[float], temperature: float = 1.0, **filters: float) -> np.ndarray:
    """How often each id is drawn."""
    column = np.array(logits, np.float32)[:, None]
    noise = np.random.default_rng(0).gumbel(size=(len(logits), DRAWS))
    ids = decoding.sample(np.repeat(column, DRAWS, axis=1), noise, temperature, **filters)  # type: ignore[arg-type]
    return np.bincount(ids, minlength=len(logits)) / DRAWS


def test_temperature_zero_is_the_first_of_the_largest() -> None:
    assert shares([1, 3, 3, 2], 0).tolist() == [0, 1, 0, 0]


def test_temperature_one_is_softmax() -> None:
    np.testing.assert_allclose(shares([0, np.log(2), np.log(5)]), [1 / 8, 2 / 8, 5 / 8], atol=0.01)


def test_a_temperature_of_two_takes_the_root() -> None:
    p = np.sqrt([1, 2, 5])
    np.testing.assert_allclose(shares([0, np.log(2), np.log(5)], 2.0), p / p.sum(), atol=0.01)


@pytest.mark.parametrize("temperature", [1e-9, 1e-3])
def test_low_temperatures_take_the_largest_and_do_not_overflow(temperature: float) -> None:
    assert shares([-1e4, 0, 1e4], temperature, top_p=0.9, top_k=2).tolist() == [0, 0, 1]


def test_a_high_temperature_is_chance() -> None:
    np.testing.assert_allclose(shares([-5, 0, 5], 1000), [1 / 3] * 3, atol=0.02)


def test_exactly_k_survive_even_where_all_are_equal() -> None:
    assert (shares([1, 1, 1, 1], top_k=2) > 0).tolist() == [True, True, False, False]
    assert (shares([1, 1, 1, 1], top_k=9) > 0).all()


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    logits = np.log([0.5, 0.3, 0.15, 0.05]).tolist()
    assert (shares(logits, top_p=0.7) > 0).tolist() == [True, True, False, False]
    assert (shares(logits, top_p=1e-9) > 0).tolist() == [True, False, False, False]
    assert (shares(logits, top_p=1) > 0).all()
    np.testing.assert_allclose(shares(logits, top_p=0.7), [5 / 8, 3 / 8, 0, 0], atol=0.01)


def test_top_p_keeps_no_more_of_equals_than_it_needs() -> None:
    assert (shares([1, 1, 1, 1], top_p=0.5) > 0).tolist() == [True, True, False, False]
    assert (shares([1, 1, 1, 1], top_p=0.75) > 0).tolist() == [True, True, True, False]


def test_top_k_comes_before_top_p() -> None:
    logits = np.log([0.4, 0.3, 0.2, 0.1]).tolist()
    assert (shares(logits, top_k=2, top_p=0.56) > 0).tolist() == [True, False, False, False]  # 4/7 reaches it


def test_columns_are_treated_each_for_itself() -> None:
    logits = np.array([[0.0, 50.0], [50.0, 0.0]])
    assert decoding.sample(logits, np.zeros((2, 2)), 1.0).tolist() == [1, 0]
    assert decoding.sample(logits, np.zeros((2, 2)), 1.0, top_k=1, top_p=0.5).tolist() == [1, 0]
