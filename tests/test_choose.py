"""Temperature, top-k, top-p and the draw, on logits made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.nn import choose


def column(*logits: float) -> np.ndarray:
    return np.array(logits, np.float32)[:, None]


def test_temperature_zero_is_the_first_of_the_largest() -> None:
    assert choose.probabilities(column(1, 3, 3, 2), 0)[:, 0].tolist() == [0, 1, 0, 0]


def test_temperature_one_is_softmax() -> None:
    p = choose.probabilities(column(0, np.log(2), np.log(5)), 1)
    np.testing.assert_allclose(p[:, 0], [1 / 8, 2 / 8, 5 / 8], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 1000.0])
def test_extreme_temperatures_give_a_distribution(temperature: float) -> None:
    p = choose.probabilities(column(-1e4, 0, 1e4), temperature)
    assert p.sum() == pytest.approx(1)
    assert p[2, 0] == p.max()


def test_exactly_k_survive_even_where_all_are_equal() -> None:
    p = choose.probabilities(column(1, 1, 1, 1), 1, top_k=2)[:, 0]
    assert p.tolist() == [0.5, 0.5, 0, 0]


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    logits = np.log([[0.5], [0.3], [0.15], [0.05]])
    assert (choose.probabilities(logits, 1, top_p=0.7)[:, 0] > 0).tolist() == [True, True, False, False]
    assert (choose.probabilities(logits, 1, top_p=1e-9)[:, 0] > 0).tolist() == [True, False, False, False]
    assert (choose.probabilities(logits, 1, top_p=1)[:, 0] > 0).all()


def test_columns_are_treated_each_for_itself() -> None:
    logits = np.array([[0.0, 5.0], [5.0, 0.0]])
    assert choose.probabilities(logits, 0).tolist() == [[0, 1], [1, 0]]


def test_a_draw_follows_the_distribution_and_never_takes_what_has_none() -> None:
    rng = np.random.default_rng(0)
    p = np.repeat(np.array([[0.0], [0.25], [0.0], [0.75]]), 20000, axis=1)
    counts = np.bincount(choose.draw(p, rng.random(20000)), minlength=4) / 20000
    assert counts[0] == counts[2] == 0
    assert counts[1] == pytest.approx(0.25, abs=0.015)


def test_a_draw_at_the_edges_stays_inside() -> None:
    p = np.array([[0.5, 0.0], [0.5, 1.0]])
    assert choose.draw(p, np.array([0.0, 0.0])).tolist() == [0, 1]
    assert choose.draw(p, np.array([np.nextafter(1, 0)] * 2)).tolist() == [1, 1]
