"""Optimizers against their formulas written out for single numbers; clipping as a step of its own."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from charlstm.nn import optim
from charlstm.nn.threads import ThreadPool


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


def test_the_orthogonal_matrix_has_the_singular_vectors_of_its_argument_and_values_near_one() -> None:
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    right, _ = np.linalg.qr(rng.standard_normal((9, 6)))
    values = np.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.01])
    expected = values / np.linalg.norm(values)
    for a, b, c in optim.MUON_COEFFICIENTS:
        expected = a * expected + b * expected**3 + c * expected**5
    assert np.abs(1 - expected).max() < 0.97
    G = (left * values) @ right.T
    np.testing.assert_allclose(optim.orthogonal(G), (left * expected) @ right.T, atol=1e-12)
    np.testing.assert_allclose(optim.orthogonal(G.T), (right * expected) @ left.T, atol=1e-12)


def test_the_orthogonal_matrix_of_zeros_is_zeros() -> None:
    assert not optim.orthogonal(np.zeros((3, 4), np.float32)).any()


def muon_case(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"layer1.U": rng.standard_normal((12, 3)), "layer1.b": rng.standard_normal(12)}


def test_muon_equals_its_formula_gate_by_gate_and_is_adam_for_what_is_not_hidden() -> None:
    hidden = ["layer1.U"]
    params, slots = muon_case(0), optim.empty_slots("muon", muon_case(0), hidden)
    assert list(slots) == ["m/layer1.U", "m/layer1.b", "v/layer1.b"]
    rest = {"layer1.b": params["layer1.b"].copy()}
    rest_slots, rest_squares = optim.empty_slots("adam", rest), 0.0
    U, m = params["layer1.U"].copy(), np.zeros((12, 3))
    for t in range(1, 5):
        g = muon_case(t)["layer1.U"]
        m = optim.MUON_MOMENTUM * m + (1 - optim.MUON_MOMENTUM) * g
        ahead = optim.MUON_MOMENTUM * m + (1 - optim.MUON_MOMENTUM) * g
        change = 0.01 * np.concatenate([optim.orthogonal(ahead[k : k + 3]) for k in range(0, 12, 3)])
        U -= change
        rest_squares = optim.adam(
            rest, {"layer1.b": muon_case(t)["layer1.b"]}, rest_slots, 0.01 * optim.MUON_ADAM_RATE, t
        )
        moved = optim.muon(params, muon_case(t), slots, 0.01, t)
        assert moved == pytest.approx(math.hypot(rest_squares, np.linalg.norm(change)), rel=1e-12)
    np.testing.assert_allclose(params["layer1.U"], U, rtol=1e-12)
    np.testing.assert_array_equal(params["layer1.b"], rest["layer1.b"])


@pytest.mark.parametrize("name", optim.OUTPUTS)
@pytest.mark.parametrize(("cells", "share"), [(optim.OUTPUT_CELLS // 2, 1), (2 * optim.OUTPUT_CELLS, 1 / 2)])
def test_beside_muon_the_output_moves_less_the_more_cells_it_sums_over(name: str, cells: int, share: float) -> None:
    params = {name: np.zeros((3, cells)), "layer1.b": np.zeros(4)}
    slots = optim.empty_slots("muon", params)
    optim.muon(params, {key: np.ones_like(p) for key, p in params.items()}, slots, 0.01, 1)
    rate = 0.01 * optim.MUON_ADAM_RATE  # Adam's first step moves every weight by its rate
    np.testing.assert_allclose(params["layer1.b"], -rate, rtol=1e-6)
    np.testing.assert_allclose(params[name], -rate * share, rtol=1e-6)


def test_muon_makes_blocks_of_rows_orthogonal_and_no_block_spans_two_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "MUON_ROWS", 2)  # gates of 5 rows: 2, 2 and 1
    p, g = np.zeros((20, 6)), np.random.default_rng(0).standard_normal((20, 6))
    slots = optim.empty_slots("muon", {"U": p}, ["U"])
    optim.muon({"U": p}, {"U": g.copy()}, slots, 1.0, 1)
    edges = [start + row for start in range(0, 20, 5) for row in (0, 2, 4)] + [20]
    for a, b in itertools.pairwise(edges):
        np.testing.assert_allclose(p[a:b], -optim.orthogonal(g[a:b]), rtol=1e-9)


def test_muon_changes_no_bit_with_the_number_of_threads() -> None:
    def trained(threads: int) -> tuple[bytes, float]:
        params, slots = muon_case(0), optim.empty_slots("muon", muon_case(0), ["layer1.U"])
        with ThreadPool(threads) as pool:
            moved = [optim.muon(params, muon_case(t), slots, 0.01, t, pool) for t in range(1, 4)]
        return params["layer1.U"].tobytes(), sum(moved)

    assert trained(1) == trained(2) == trained(3) == trained(7)


def test_sgd_goes_down_the_gradient() -> None:
    params, grads = arrays(0), arrays(1)
    expected = params["a"] - 0.1 * grads["a"]
    optim.sgd(params, grads, {}, 0.1, 1)
    np.testing.assert_allclose(params["a"], expected)


@pytest.mark.parametrize("name", list(optim.UPDATES))
def test_every_optimizer_returns_the_norm_of_its_change(name: str) -> None:
    before, params, slots = arrays(0), arrays(0), optim.empty_slots(name, arrays(0))
    for t in range(1, 4):
        moved = optim.UPDATES[name](params, arrays(t), slots, 0.1, t)
        assert moved == pytest.approx(optim.norm({key: params[key] - before[key] for key in params}), rel=1e-9)
        before = {key: p.copy() for key, p in params.items()}


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


def test_the_average_counts_late_weights_more() -> None:
    seen = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    averages = {"p": np.full(7, 1e9, np.float32)}  # the first step replaces it
    for t, p in enumerate(seen, start=1):
        optim.average(averages, {"p": p}, t)
    k = optim.AVERAGING_POWER
    shares = np.array([math.prod((t + j) for j in range(k)) for t in range(1, 41)], float)  # t (t + 1) … (t + k - 1)
    np.testing.assert_allclose(averages["p"], shares / shares.sum() @ seen, rtol=1e-4, atol=1e-5)


def test_a_share_of_the_weights_at_the_start_stays_in_the_average_and_can_be_changed() -> None:
    start, *seen = ({"p": p} for p in np.random.default_rng(0).standard_normal((41, 7)))
    plain, mixed = ({"p": np.zeros(7)} for _ in range(2))
    for t, params in enumerate(seen, start=1):
        optim.average(plain, params, t)
        optim.average(mixed, params, t, start, 0.2 if t <= 20 else 0.3)
        if t == 20:
            mixed = optim.with_start_share(mixed, start, 0.2, 0.3)
    np.testing.assert_allclose(mixed["p"], 0.7 * plain["p"] + 0.3 * start["p"], rtol=1e-9)
    np.testing.assert_allclose(optim.with_start_share(mixed, start, 0.3, 0.0)["p"], plain["p"], rtol=1e-9)
