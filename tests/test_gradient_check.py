"""The checker is an instrument: it must pass what is right and fail what is a little wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gradient_check import GradientError, check_gradient


def example() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((3, 4))
    return x, np.cos(x)


def test_a_right_derivative_passes() -> None:
    x, gradient = example()
    assert check_gradient("sin", lambda: float(np.sin(x).sum()), x, gradient) < 1e-9


def test_a_derivative_wrong_by_a_tenth_of_a_percent_fails() -> None:
    x, gradient = example()
    with pytest.raises(GradientError, match="sin: relative error"):
        check_gradient("sin", lambda: float(np.sin(x).sum()), x, gradient * 1.001)


def test_one_wrong_entry_among_many_fails_and_is_named() -> None:
    x, gradient = example()
    gradient[1, 2] *= 1.001
    with pytest.raises(GradientError, match=r"at \(1, 2\)"):
        check_gradient("sin", lambda: float(np.sin(x).sum()), x, gradient)


def test_a_derivative_that_is_nan_fails() -> None:
    x, gradient = example()
    gradient[0, 0] = np.nan
    with pytest.raises(GradientError):
        check_gradient("sin", lambda: float(np.sin(x).sum()), x, gradient)


def test_zero_where_there_is_a_slope_fails() -> None:
    x, gradient = example()
    with pytest.raises(GradientError):
        check_gradient("sin", lambda: float(np.sin(x).sum()), x, np.zeros_like(gradient))


def test_float32_is_refused() -> None:
    x = np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="float64"):
        check_gradient("sum", lambda: float(x.sum()), x, np.ones(3))
