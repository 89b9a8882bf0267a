"""Optimizers against their formulas written out for single numbers; clipping as a step of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charlstm.nn import optim


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(4)}


def test_adam_equals_its_formula() -> None:
    params, slots = arrays(0), optim.empty_slots("adam", arrays(0))
    p = float(params["a"][1, 1])
    m = v = 0.0
    for t in range(1, 6):
        grads = arrays(t)
        g = float(grads["a"][1, 1])
        m = optim.ADAM_BETA1 * m + (1 - optim.ADAM_BETA1) * g
        v = optim.ADAM_BETA2 * v + (1 - optim.ADAM_BETA2) * g * g
        step = 0.01 * (m / (1 - optim.ADAM_BETA1**t)) / (math.sqrt(v / (1 - optim.ADAM_BETA2**t)) + optim.ADAM_EPSILON)
        p -= step
        optim.adam(params, grads, slots, 0.01, t)
        assert params["a"][1, 1] == pytest.approx(p, rel=1e-12)
    assert slots["m/a"][1, 1] == pytest.approx(m, rel=1e-12)
    assert slots["v/a"][1, 1] == pytest.approx(v, rel=1e-12)


def test_rmsprop_equals_its_formula() -> None:
    params, slots = arrays(0), optim.empty_slots("rmsprop", arrays(0))
    p, s = float(params["b"][2]), 0.0
    for t in range(1, 6):
        grads = arrays(t)
        g = float(grads["b"][2])
        s = optim.RMSPROP_DECAY * s + (1 - optim.RMSPROP_DECAY) * g * g
        p -= 0.01 * g / (math.sqrt(s) + optim.RMSPROP_EPSILON)
        optim.rmsprop(params, grads, slots, 0.01, t)
        assert params["b"][2] == pytest.approx(p, rel=1e-12)


def test_sgd_goes_down_the_gradient() -> None:
    params, grads = arrays(0), arrays(1)
    expected = params["a"] - 0.1 * grads["a"]
    optim.sgd(params, grads, {}, 0.1, 1)
    np.testing.assert_allclose(params["a"], expected)


@pytest.mark.parametrize("name", list(optim.UPDATES))
def test_every_optimizer_finds_the_bottom_of_a_bowl(name: str) -> None:
    params = {"x": np.array([3.0, -2.0])}
    slots = optim.empty_slots(name, params)
    for t in range(1, 501):
        optim.UPDATES[name](params, {"x": 2 * params["x"]}, slots, 0.1 * (1 - t / 501), t)
    assert np.abs(params["x"]).max() < 0.05


def test_clipping_scales_to_the_limit_and_returns_the_norm_before() -> None:
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert optim.clip_global_norm(grads, 1.0) == pytest.approx(5)
    assert optim.norm(grads) == pytest.approx(1)
    np.testing.assert_allclose(grads["a"], [0.6, 0])


@pytest.mark.parametrize("limit", [0.0, 10.0])
def test_clipping_leaves_small_gradients_and_a_limit_of_zero_alone(limit: float) -> None:
    grads = {"a": np.array([3.0, 4.0])}
    assert optim.clip_global_norm(grads, limit) == pytest.approx(5)
    np.testing.assert_array_equal(grads["a"], [3.0, 4.0])


def test_the_norm_of_what_is_not_finite_is_not_finite() -> None:
    assert not math.isfinite(optim.norm({"a": np.array([1.0, np.nan])}))
    assert not math.isfinite(optim.clip_global_norm({"a": np.array([1.0, np.inf])}, 1.0))
