"""One layer: its forward pass against the oracle, its backward pass against central differences."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.nn import layout, lstm
from charlstm.nn.tape import Tape
from tests import oracle
from tests.gradient_check import check_all

D, H, T, N = 3, 5, 4, 2


def tape_of(T: int, N: int = N, multiplicative: bool = True) -> Tape:
    return Tape(D, H, T, N, np.float64, multiplicative=multiplicative)


def example(seed: int = 0, T: int = T, N: int = N, multiplicative: bool = True):
    rng = np.random.default_rng(seed)
    params = lstm.init(rng, D, H, np.float64, multiplicative=multiplicative)
    params["b"] += rng.standard_normal(4 * H)
    if multiplicative:
        params["M"] += rng.standard_normal((H, D))
    x, h0, c0 = rng.standard_normal((T, N, D)), rng.standard_normal((N, H)), rng.standard_normal((N, H))
    return params, x, h0, c0, tape_of(T, N, multiplicative), rng


@pytest.mark.parametrize("multiplicative", [False, True])
def test_forward_equals_the_gate_by_gate_oracle(multiplicative: bool) -> None:
    params, x, h0, c0, tape, _ = example(multiplicative=multiplicative)
    y, h, c = lstm.forward(params, x, h0, c0, tape)
    for n in range(N):
        expected_y, expected_h, expected_c = oracle.layer(params, x[:, n], h0[n], c0[n])
        np.testing.assert_allclose(y[:, n], expected_y, rtol=1e-12)
        np.testing.assert_allclose(h[n], expected_h, rtol=1e-12)
        np.testing.assert_allclose(c[n], expected_c, rtol=1e-12)


@pytest.mark.parametrize(("seed", "N", "multiplicative"), [(0, 2, True), (1, 1, True), (2, 2, False), (3, 1, False)])
def test_every_gradient_agrees_with_central_differences(seed: int, N: int, multiplicative: bool) -> None:
    params, x, h0, c0, tape, rng = example(seed, N=N, multiplicative=multiplicative)
    v_y, v_h, v_c = rng.standard_normal((T, N, H)), rng.standard_normal((N, H)), rng.standard_normal((N, H))

    def f() -> float:
        y, h, c = lstm.forward(params, x, h0, c0, tape)
        return float((y * v_y).sum() + (h * v_h).sum() + (c * v_c).sum())

    f()
    grads, d_x, d_h0, d_c0 = lstm.backward(params, v_y, v_h, v_c, tape)
    assert d_x is not None
    analytic = {name: g.copy() for name, g in grads.items()} | {"x": d_x.copy(), "h0": d_h0, "c0": d_c0}
    check_all(f, params | {"x": x, "h0": h0, "c0": c0}, analytic)


def test_the_whole_sequence_equals_carried_chunks_exactly() -> None:
    params, x, h0, c0, _, _ = example(T=12)
    whole, h_whole, c_whole = lstm.forward(params, x, h0, c0, tape_of(12))
    h, c, chunks = h0, c0, []
    for start in range(0, 12, 4):
        tape = tape_of(4)
        y, h, c = lstm.forward(params, x[start : start + 4], h, c, tape)
        chunks.append(y.copy())
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(h, h_whole, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(c, c_whole, rtol=1e-14, atol=1e-15)


def test_gradients_of_carried_chunks_add_up_to_those_of_the_whole() -> None:
    """With the gradient handed back from chunk to chunk, nothing is cut and nothing is counted twice."""
    params, x, h0, c0, whole, rng = example(T=8)
    v_y, zero = rng.standard_normal((8, N, H)), np.zeros((N, H))
    lstm.forward(params, x, h0, c0, whole)
    expected, _, d_h0, d_c0 = lstm.backward(params, v_y, zero, zero, whole)

    tapes = [tape_of(4) for _ in range(2)]
    h, c = h0, c0
    for k, tape in enumerate(tapes):
        _, h, c = lstm.forward(params, x[4 * k : 4 * k + 4], h, c, tape)
    d_h, d_c = zero, zero
    total = {name: np.zeros_like(g) for name, g in expected.items()}
    for k in (1, 0):
        grads, _, d_h, d_c = lstm.backward(params, v_y[4 * k : 4 * k + 4], d_h, d_c, tapes[k])
        for name, g in grads.items():
            total[name] += g
    for name, g in expected.items():
        np.testing.assert_allclose(total[name], g, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(d_h, d_h0, rtol=1e-12)
    np.testing.assert_allclose(d_c, d_c0, rtol=1e-12)


def test_a_product_in_pieces_gives_what_a_whole_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the two is computed depends on the processor."""
    H, rng, found = 128, np.random.default_rng(0), []
    params, zero = lstm.init(rng, D, H, np.float64, multiplicative=True), np.zeros((N, H))
    x, v_y = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    for small_kernels, pieces in ((True, 2), (False, 1)):
        monkeypatch.setattr(layout, "SMALL_KERNELS", small_kernels)
        assert layout.blocks(N, H, H) == pieces
        tape = Tape(D, H, T, N, np.float64, multiplicative=True)
        y, *_ = lstm.forward(params, x, zero, zero, tape)
        grads, *_ = lstm.backward(params, v_y, zero, zero, tape)
        found.append(grads | {"y": y})
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_inputs_of_a_thousand_stay_finite_and_raise_no_warning() -> None:
    params, x, h0, c0, tape, _ = example()
    y, _, _ = lstm.forward(params, x * 1e3, h0 * 1e3, c0 * 1e3, tape)
    grads, *_ = lstm.backward(params, np.ones((T, N, H)), np.zeros((N, H)), np.zeros((N, H)), tape)
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in grads.values())


def test_the_forget_gate_begins_open_and_the_other_biases_at_zero() -> None:
    b = lstm.init(np.random.default_rng(0), D, H)["b"]
    assert (b[H : 2 * H] == lstm.FORGET_BIAS).all()
    assert np.count_nonzero(b) == H


def test_the_dtype_of_the_parameters_decides_the_precision() -> None:
    for dtype in (np.float32, np.float64):
        params = lstm.init(np.random.default_rng(0), D, H, dtype)
        zero = np.zeros((N, H), dtype)
        y, h, c = lstm.forward(params, np.ones((T, N, D), dtype), zero, zero, Tape(D, H, T, N, dtype))
        assert {y.dtype, h.dtype, c.dtype} == {np.dtype(dtype)}


def test_torch_agrees_where_it_is_installed() -> None:
    torch = pytest.importorskip("torch")
    params, x, h0, c0, tape, rng = example(multiplicative=False)
    order = np.r_[0:H, H : 2 * H, 3 * H : 4 * H, 2 * H : 3 * H]  # torch stacks i, f, g, o
    peer = torch.nn.LSTM(D, H, dtype=torch.float64)
    with torch.no_grad():
        for name, value in (("weight_ih_l0", params["W"]), ("weight_hh_l0", params["U"]), ("bias_ih_l0", params["b"])):
            getattr(peer, name).copy_(torch.tensor(value[order]))
        peer.bias_hh_l0.zero_()
    theirs = torch.tensor(x.copy(), requires_grad=True)
    out, _ = peer(theirs, (torch.tensor(h0.copy())[None], torch.tensor(c0.copy())[None]))
    y, _, _ = lstm.forward(params, x, h0, c0, tape)
    np.testing.assert_allclose(out.detach().numpy(), y, rtol=1e-10)
    v = rng.standard_normal((T, N, H))
    out.backward(torch.tensor(v.copy()))
    zero = np.zeros((N, H))
    grads, d_x, _, _ = lstm.backward(params, v, zero, zero, tape)
    np.testing.assert_allclose(theirs.grad.numpy(), d_x, rtol=1e-9)
    np.testing.assert_allclose(peer.weight_hh_l0.grad.numpy(), grads["U"][order], rtol=1e-9)
