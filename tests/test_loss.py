"""Cross-entropy: right, stable, and its gradient the exact derivative of what is reported."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charlstm.nn import loss as losses
from tests import oracle
from tests.gradient_check import check_gradient

V, M = 5, 7


def example() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((V, M)) * 3, rng.integers(0, V, M)


def test_the_loss_equals_the_oracle() -> None:
    logits, targets = example()
    loss, _ = losses.softmax_cross_entropy(logits.copy(), targets)
    assert loss == pytest.approx(oracle.loss(logits[:, :, None], targets[:, None]), rel=1e-13)
    assert loss == pytest.approx(float(losses.nll(logits, targets).mean()), rel=1e-13)


def test_the_gradient_is_the_derivative_of_the_loss() -> None:
    logits, targets = example()
    _, gradient = losses.softmax_cross_entropy(logits.copy(), targets)
    check_gradient("logits", lambda: losses.softmax_cross_entropy(logits.copy(), targets)[0], logits, gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_logits_of_ten_thousand_give_a_finite_loss_and_gradient(dtype: type, size: float) -> None:
    logits = np.zeros((V, M), dtype)
    logits[1] = size
    loss, gradient = losses.softmax_cross_entropy(logits, np.zeros(M, np.intp))
    assert math.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert loss == pytest.approx(1e4 if size > 0 else math.log(V - 1), rel=1e-5)


def test_probabilities_from_log_softmax_sum_to_one() -> None:
    logits, _ = example()
    np.testing.assert_allclose(np.exp(losses.log_softmax(logits * 1e3)).sum(axis=0), 1)


def test_chance_is_the_logarithm_of_the_vocabulary() -> None:
    loss, _ = losses.softmax_cross_entropy(np.zeros((65, 4)), np.arange(4))
    assert loss == pytest.approx(math.log(65))
