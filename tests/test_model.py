"""The whole stack: against the oracle, against central differences, with dropout, an embedding and a carried state."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.nn import loss as losses
from charlstm.nn import model
from charlstm.nn.config import ModelConfig, embedding_for
from charlstm.nn.stepper import Stepper
from tests import oracle
from tests.conftest import slow, sweep
from tests.gradient_check import check_all, check_whole

V, H, T, N = 7, 5, 4, 3


def example(
    layers: int,
    embedding: int = 0,
    dropout: float = 0.0,
    dtype: type = np.float64,
    T: int = T,
    residual: bool = True,
    multiplicative: bool = True,
):
    rng = np.random.default_rng(layers + 11 * embedding)
    config = ModelConfig(
        V, embedding, residual and layers > 1, multiplicative, hidden=H, layers=layers, dropout=dropout
    )
    params = model.init(config, rng, dtype)
    for p in params.values():
        p += 0.5 * rng.standard_normal(p.shape).astype(
            dtype
        )  # so that no gradient is so small that differences are rounding
    ids = rng.integers(0, V, (T + 1, N))
    shape = (layers, N, H)
    state = model.State(rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype))
    return config, params, ids, state, model.Workspace.empty(config, T, N, dtype)


@pytest.mark.parametrize(("layers", "residual"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("embedding", [0, 6])
def test_logits_equal_the_oracle(layers: int, residual: bool, multiplicative: bool, embedding: int) -> None:
    config, params, ids, state, work = example(layers, embedding, residual=residual, multiplicative=multiplicative)
    logits, _ = model.forward(params, config, ids[:-1], state, work)
    expected = oracle.logits(params, config, ids[:-1], state.h, state.c)
    np.testing.assert_allclose(logits.reshape(V, T, N), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "embedding", "dropout"),
    [(1, 0, 0), (2, 6, 0.4), *(pytest.param(*row, marks=slow) for row in [(2, 0, 0), (3, 6, 0)])],
)
def test_every_gradient_agrees_with_central_differences(layers: int, embedding: int, dropout: float) -> None:
    config, params, ids, state, work = example(layers, embedding, dropout)

    def run() -> tuple[float, dict[str, np.ndarray]]:
        rng = np.random.default_rng(5)  # the same masks each time
        loss, grads, _ = model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, work, rng)
        return loss, grads

    loss, grads = run()
    check_all(lambda: run()[0], params, grads)
    if dropout == 0:
        logits = oracle.logits(params, config, ids[:-1], state.h, state.c)
        assert loss == pytest.approx(oracle.loss(logits, ids[1:]), rel=1e-12)


def test_gradients_stay_right_when_weights_are_large() -> None:
    """At ten times the usual scale the gates saturate; clipping is no part of the gradient."""
    config, params, ids, state, work = example(2)
    for p in params.values():
        p *= 10
    run = lambda: model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, work)  # noqa: E731
    _, grads, _ = run()
    check_all(lambda: run()[0], params, grads, tolerance=1e-6)


def test_a_carried_window_equals_the_whole() -> None:
    config, params, ids, state, work = example(2, T=8)
    whole, after = model.forward(params, config, ids[:-1], state, work)
    whole = whole.reshape(V, 8, N).copy()
    half = model.Workspace.empty(config, 4, N, np.float64)
    for k in (0, 4):
        logits, state = model.forward(params, config, ids[k : k + 4], state, half)
        np.testing.assert_allclose(logits.reshape(V, 4, N), whole[:, k : k + 4], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(state.c, after.c, rtol=1e-13)


@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (2, 6), (3, 0)])
def test_sampling_one_character_at_a_time_equals_the_window(layers: int, embedding: int) -> None:
    config, params, ids, state, work = example(layers, embedding)
    expected, after = model.forward(params, config, ids[:-1], state, work)
    expected = expected.reshape(V, T, N).copy()
    stepper = Stepper(params, config, N)
    for k, cell in enumerate(stepper.cells):
        cell.h[:], cell.c[:] = state.h[k], state.c[k]
    for t in range(T):
        np.testing.assert_allclose(stepper.step(ids[t]), expected[:, t], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose([cell.h for cell in stepper.cells], after.h, rtol=1e-11)


def test_dropout_keeps_the_mean_and_is_off_without_a_generator() -> None:
    config, params, ids, state, work = example(1, dropout=0.5)
    params["layer1.U"][:] = 0  # what is dropped of these has an effect that is not linear
    plain, _ = model.forward(params, config, ids[:-1], state, work)
    plain = plain.copy()
    again, _ = model.forward(params, config, ids[:-1], state, work)
    np.testing.assert_array_equal(plain, again)
    rng = np.random.default_rng(0)
    mean = np.mean([model.forward(params, config, ids[:-1], state, work, rng)[0].copy() for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, plain, atol=0.03)


def test_dropped_recurrent_weights_keep_their_mean_and_only_those_kept_get_a_gradient() -> None:
    config, params, ids, state, work = example(2, dropout=0.3 + model.RECURRENT_FROM)
    U, rng, count = params["layer2.U"], np.random.default_rng(0), 4000
    mean = np.zeros_like(U)
    for _ in range(count):
        model._drop_weights(model.part(params, "layer2"), 1, config, work, rng)
        kept = work.kept[1]
        assert kept is not None
        mean += kept / count
    np.testing.assert_allclose(mean, 1, atol=0.05)
    _, grads, _ = model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, work, rng)
    kept = work.kept[1]
    assert kept is not None
    assert 0.5 < np.count_nonzero(kept) / kept.size < 0.9
    np.testing.assert_array_equal(grads["layer2.U"] == 0, kept == 0)


def test_a_share_below_the_threshold_drops_outputs_only() -> None:
    config, params, ids, state, work = example(2, dropout=model.RECURRENT_FROM)
    model.forward(params, config, ids[:-1], state, work, np.random.default_rng(0))
    assert work.kept == [None, None]
    assert all(mask is not None and (mask == 0).any() for mask in work.masks)


def test_dropout_masks_come_from_the_generator_alone() -> None:
    config, params, ids, state, work = example(2, dropout=0.5)
    first, second = (
        model.forward(params, config, ids[:-1], state, work, np.random.default_rng(3))[0].copy() for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_forgetting_touches_the_named_streams_only() -> None:
    _, _, _, state, _ = example(2)
    after = state.forget(np.array([False, True, False]))
    assert not after.h[:, 1].any()
    assert not after.c[:, 1].any()
    np.testing.assert_array_equal(after.c[:, [0, 2]], state.c[:, [0, 2]])


@pytest.mark.parametrize("gate", range(4))
def test_saturation_counts_every_gate(gate: int) -> None:
    *_, work = example(2)
    for tape in work.tapes:
        tape.last_gates[:3], tape.last_gates[3] = 0.5, 0.0
    assert model.saturated(work) == 0
    work.tapes[1].last_gates[gate] = 0.999
    assert model.saturated(work) == 1 / 8


def test_the_shapes_are_those_of_the_parameters() -> None:
    for config in (ModelConfig(V, hidden=H, layers=3), ModelConfig(V, 6, hidden=H)):
        params = model.init(config, np.random.default_rng(0))
        assert {name: p.shape for name, p in params.items()} == model.shapes(config)
        assert list(params) == list(model.shapes(config))
        assert {p.dtype for p in params.values()} == {np.dtype(np.float32)}


def test_large_vocabularies_get_an_embedding_and_small_ones_none() -> None:
    assert embedding_for(65) == 0
    assert 0 < embedding_for(5387) < 5387


def test_the_memory_formula_is_that_of_the_buffers() -> None:
    T, N = 300, 40
    for config in (ModelConfig(V, hidden=H, layers=3), ModelConfig(V, 6, hidden=H)):
        work = model.Workspace.empty(config, T, N)
        arrays = [work.inputs, work.logits, work.top]
        for tape in work.tapes:
            arrays += [tape.h, tape.c, tape.tanh_c, tape.gates, tape.slopes, tape.slope_c, tape.d_inputs, tape.d_share]
        buffers = sum(a.size for a in arrays)
        top_gradient = (H + config.embedding) * T * N
        assert model.Workspace.numbers(config, T, N) == pytest.approx(buffers + top_gradient, rel=0.02)


@pytest.mark.parametrize("number", sweep([9, 100], 9))
def test_gradients_agree_with_central_differences_over_many_random_shapes(number: int) -> None:
    for seed in range(number):
        rng = np.random.default_rng(seed)
        size = lambda most: int(rng.integers(1, most + 1))  # noqa: E731, B023
        config = ModelConfig(
            vocabulary=size(4) + 1,
            hidden=size(4),
            layers=size(3),
            embedding=size(4) if seed % 3 == 0 else 0,
            residual=seed % 2 == 0,
        )
        T, N = size(4), size(3)
        params = model.init(config, rng, np.float64)
        for p in params.values():
            p += 0.5 * rng.standard_normal(p.shape)
        ids = rng.integers(0, config.vocabulary, (T + 1, N))
        state = model.State(*rng.standard_normal((2, config.layers, N, config.hidden)))
        work = model.Workspace.empty(config, T, N, np.float64)
        targets = ids[1:].reshape(-1)

        def loss(params=params, config=config, ids=ids, state=state, work=work, targets=targets) -> float:
            logits, _ = model.forward(params, config, ids[:-1], state, work)
            return float(losses.nll(logits, targets).mean())

        _, grads, _ = model.loss_and_gradients(params, config, ids[:-1], ids[1:], state, work)
        check_whole(loss, params, grads)
