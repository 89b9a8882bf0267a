"""The gradient checker: analytic derivatives against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from charlstm.nn.types import Array, Arrays

STEP = 1e-5
TOLERANCE = 1e-7


class GradientError(AssertionError):
    """A derivative that is not the one of its function."""


def numerical_gradient(f: Callable[[], float], x: Array) -> Array:
    """(f(x + ε) - f(x - ε)) / 2ε for every entry of x, which is put back afterwards."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + STEP
        above = f()
        x[index] = before - STEP
        below = f()
        x[index] = before
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


def check_gradient(name: str, f: Callable[[], float], x: Array, gradient: Array, tolerance: float = TOLERANCE) -> float:
    """Compare `gradient` with the numerical one of f in x; returns the relative error of the whole array.

    Relative to the larger of the two norms, so a gradient near zero needs no special case and one of zero must be matched.
    """
    assert x.dtype == np.float64, "a gradient is checked in float64"
    assert gradient.shape == x.shape, f"{name}: gradient of shape {gradient.shape} for {x.shape}"
    numerical = numerical_gradient(f, x)
    scale = max(float(np.linalg.norm(numerical)), float(np.linalg.norm(gradient)))
    error = float(np.linalg.norm(numerical - gradient)) / scale if scale > 0 else 0.0
    if not error <= tolerance:
        worst = np.unravel_index(np.abs(numerical - gradient).argmax(), x.shape)
        raise GradientError(
            f"{name}: relative error {error:.2e} above {tolerance:.0e}; at {tuple(map(int, worst))} "
            f"the numerical derivative is {numerical[worst]:.8g} and the analytic one {gradient[worst]:.8g}"
        )
    return error


def check_whole(f: Callable[[], float], arrays: Arrays, gradients: Arrays, tolerance: float = TOLERANCE) -> float:
    """Check all arrays as one vector: for models in which some arrays hardly matter, and their differences are all rounding."""
    numerical = np.concatenate([numerical_gradient(f, x).ravel() for x in arrays.values()])
    analytic = np.concatenate([gradients[name].ravel() for name in arrays])
    error = float(np.linalg.norm(numerical - analytic) / np.linalg.norm(numerical))
    if not error <= tolerance:
        raise GradientError(f"relative error {error:.2e} of the whole gradient above {tolerance:.0e}")
    return error


def check_all(f: Callable[[], float], arrays: Arrays, gradients: Arrays, tolerance: float = TOLERANCE) -> float:
    """Check every array of a dict; returns the largest error."""
    assert arrays.keys() == gradients.keys()
    return max(check_gradient(name, f, arrays[name], gradients[name], tolerance) for name in arrays)
