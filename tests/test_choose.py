"""Temperature, truncation, line ends and the draw, on logits made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.nn import decoding
from charlstm.nn.decoding import Decoding
from charlstm.nn.hazard import GAIN, TABLE, TAIL, LineAccount, LineHazard

DRAWS = 40_000


def shares(logits: list[float], temperature: float = 1.0, **filters: float) -> np.ndarray:
    """How often each id is drawn."""
    column = np.array(logits, np.float32)[:, None]
    noise = np.random.default_rng(0).gumbel(size=(len(logits), DRAWS))
    ids = decoding.sample(np.repeat(column, DRAWS, axis=1), noise, Decoding(temperature, **filters))  # type: ignore[arg-type]
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
    assert decoding.sample(logits, np.zeros((2, 2)), Decoding()).tolist() == [1, 0]
    assert decoding.sample(logits, np.zeros((2, 2)), Decoding(top_k=1, top_p=0.5)).tolist() == [1, 0]


@pytest.mark.parametrize(
    "filters", [{"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 9, "top_p": 0.9, "min_p": 0.01}], ids=str
)
def test_a_text_gets_the_same_characters_alone_and_among_others(filters: dict[str, float]) -> None:
    rng = np.random.default_rng(2)
    how = Decoding(0.8, line_end=0, ends=(1, 2), runs=frozenset({2, 3, 4}), **filters)  # type: ignore[arg-type]
    logits = np.round(rng.normal(scale=2, size=(100, 20, 7)), 1).astype(np.float32)  # some are equal
    noise = rng.gumbel(size=logits.shape)

    def ids(columns: slice) -> list[list[int]]:
        N = len(range(7)[columns])
        lines, chosen = LineAccount(LineHazard(range(2, 67)), N), [np.zeros(N, np.intp)]
        for z, gumbel in zip(logits[:, :, columns], noise[:, :, columns], strict=True):
            chosen.append(decoding.sample(z, gumbel, how, lines, chosen[-1]))
        assert N > 1 or all(len(set(texts)) > 1 for texts in np.transpose(chosen).tolist())
        return [texts.tolist() for texts in chosen]

    together = ids(slice(7))
    for k in range(7):
        assert [[row[k]] for row in together] == ids(slice(k, k + 1))


def test_the_first_ones_of_equals_are_kept_in_one_dimension_and_in_two() -> None:
    for weights in (np.array([1.0, 2, 1, 1]), np.array([[1.0, 4], [2, 3], [1, 2], [1, 1]])):
        decoding.filter_weights(weights, 2, 1.0)
        assert (weights.T if weights.ndim == 2 else weights[None])[0].tolist() == [1, 2, 0, 0]
        assert weights.ndim == 1 or weights[:, 1].tolist() == [4, 3, 0, 0]


def test_min_p_is_relative_to_the_likeliest() -> None:
    logits = np.log([0.6, 0.3, 0.06, 0.04]).tolist()
    assert (shares(logits, min_p=0.08) > 0).tolist() == [True, True, True, False]
    np.testing.assert_allclose(shares(logits, min_p=0.2), [2 / 3, 1 / 3, 0, 0], atol=0.01)


# -- line ends

LINE_END, STOP = 0, 1
SETTINGS = [
    {"temperature": t, **f}
    for t in (1e-30, 0.1, 0.5, 1.0, 3.0)
    for f in ({}, {"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.2})
]


def probabilities(logits: np.ndarray, boost: float | None = None, **settings: float) -> np.ndarray:
    """The distribution, (V, N)."""
    how = Decoding(line_end=LINE_END, ends=(STOP,), **settings)  # type: ignore[arg-type]
    scores, log_odds = decoding.log_scores(logits, how, None if boost is None else np.full(logits.shape[1], boost))
    p = np.exp(scores - scores.max(axis=0))
    p /= p.sum(axis=0)
    np.testing.assert_allclose(p[LINE_END], 1 / (1 + np.exp(-log_odds)), rtol=1e-9)
    return p


def some_logits() -> np.ndarray:
    return np.random.default_rng(3).normal(scale=4, size=(12, 50)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64))
    return p / p.sum(axis=0)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_line_end_keeps_its_probability_and_all_sum_to_one(settings: dict[str, float]) -> None:
    logits = some_logits()
    p = probabilities(logits, **settings)
    np.testing.assert_allclose(p.sum(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(p[LINE_END], softmax(logits)[LINE_END], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-30, 0.1, 0.5, 3.0])
def test_the_end_of_a_sentence_keeps_its_probability_and_the_rest_is_sharpened(temperature: float) -> None:
    logits = some_logits()
    p, model = probabilities(logits, temperature=temperature), softmax(logits)
    np.testing.assert_allclose(p[STOP], model[STOP], rtol=1e-6)
    if temperature >= 0.1:
        sharpened = softmax(logits[2:] / temperature)
        np.testing.assert_allclose(p[2:] / p[2:].sum(axis=0), sharpened, rtol=1e-5, atol=1e-12)


def test_temperature_one_without_truncation_is_the_models_distribution() -> None:
    logits = some_logits()
    np.testing.assert_allclose(probabilities(logits), softmax(logits), rtol=1e-6)
    noise = np.random.default_rng(1).gumbel(size=logits.shape)
    behind = LineAccount(LineHazard(range(65)), 50, 30)
    behind.chars += 500
    chosen = decoding.sample(logits, noise, Decoding(line_end=LINE_END, ends=(STOP,)), behind)
    assert chosen.tolist() == (logits + noise).argmax(axis=0).tolist(), "and no account changes it"


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_what_continues_a_run_keeps_its_probability_and_all_sum_to_one(settings: dict[str, float]) -> None:
    """Columns with a run of an ordinary character, of one that ends sentences, and without one."""
    logits = some_logits()
    before = np.resize([5, STOP, 7], logits.shape[1])
    how = Decoding(line_end=LINE_END, ends=(STOP,), runs=frozenset({STOP, 5}), **settings)  # type: ignore[arg-type]
    scores, log_odds = decoding.log_scores(logits, how, before=before)
    p, model = softmax(scores), softmax(logits)
    for column, character in enumerate(before):
        kept = [LINE_END, character] if character in how.runs else [LINE_END]
        np.testing.assert_allclose(p[kept, column], model[kept, column], rtol=1e-6)
        alone = decoding.log_scores(logits[:, [column]], how, before=before[[column]])
        np.testing.assert_allclose(scores[:, [column]], alone[0], rtol=1e-12)
        np.testing.assert_allclose(log_odds[[column]], alone[1], rtol=1e-12)


def test_a_run_that_truncation_would_never_end_is_as_long_as_the_model_has_it() -> None:
    logits = np.repeat(np.log([[0.96], [0.02], [0.02]]), DRAWS, axis=1)
    noise = np.random.default_rng(0).gumbel(size=logits.shape)
    how = Decoding(0.8, top_p=0.95, runs=frozenset({0}))
    for before, expected in ((0, 0.96), (1, 1.0)):
        ids = decoding.sample(logits, noise, how, before=np.full(DRAWS, before))
        assert np.mean(ids == 0) == pytest.approx(expected, abs=0.005)


def test_a_vocabulary_of_ends_alone_can_be_sampled() -> None:
    for V in (1, 2, 3):
        logits = some_logits()[:V]
        how = Decoding(0.5, top_p=0.9, line_end=LINE_END, ends=(STOP, 2)[: V - 1], runs=frozenset({STOP, 2}))
        before = np.resize([STOP, V - 1], logits.shape[1])
        chosen = decoding.sample(logits, np.zeros_like(logits), how, before=before)
        assert set(chosen.tolist()) <= set(range(V))


def test_a_line_without_chances_to_end_gets_them_back() -> None:
    lengths = [10 + k for k in range(65)]  # as evenly spread quantiles
    account = LineAccount(LineHazard(lengths), 2)
    never, always = np.array([-20.0, -20.0]), np.array([False, False])
    boosts = []
    for _ in range(200):
        boosts.append(account.boost()[0])
        account.advance(never, always)
    assert boosts[10] == 0, "no line of the text is shorter"
    assert np.all(np.diff(boosts[11:]) > 0)
    assert boosts[42] == pytest.approx(GAIN * np.log(2), rel=0.1), "half of the lines end before"
    assert boosts[148] > GAIN * TAIL, "twice the longest"
    account.advance(never, np.array([True, False]))
    assert account.boost()[0] == 0
    assert account.boost()[1] > 0


def test_empty_lines_owe_nothing_to_the_line_that_follows() -> None:
    """Paragraphs with an empty line between: a paragraph begins with no chance to end, and needs none."""
    lengths = sorted([0] * 33 + [200 + 5 * k for k in range(32)])
    account = LineAccount(LineHazard(lengths), 1)
    account.advance(np.array([9.0]), np.array([True]))  # the empty line
    for _ in range(200):
        assert account.boost() == [0]
        account.advance(np.array([-20.0]), np.array([False]))
    for _ in range(80):
        account.advance(np.array([-20.0]), np.array([False]))
    assert account.boost()[0] == pytest.approx(GAIN * np.log(2), rel=0.1), "half of the paragraphs end before"


def test_a_hazard_that_is_looked_up_is_the_one_that_is_computed() -> None:
    for longest in (70, TABLE + 100):
        hazard = LineHazard([longest - 64 + k for k in range(65)])
        lengths = np.array([0, 1, longest - 3, longest - 1, longest, 3 * longest])
        np.testing.assert_array_equal(hazard(lengths), np.concatenate([hazard(np.array([k])) for k in lengths]))


def test_a_prompt_is_no_missed_chance() -> None:
    assert LineAccount(LineHazard(range(65)), 1, chars=60).boost()[0] == 0
