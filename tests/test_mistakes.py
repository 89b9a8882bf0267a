"""The mistakes of a hand-written LSTM: each is caught, each is seen in training, and the project's own code has none of them."""

from __future__ import annotations

import contextlib
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlstm.nn import loss as losses
from charlstm.nn import lstm, model, optim
from charlstm.nn.config import ModelConfig
from charlstm.settings import TrainConfig
from charlstm.text.batches import Batches, Cursor
from charlstm.text.sources import bundled_path
from tests import mistakes, oracle
from tests.conftest import ROOT, slow, sweep
from tests.experiments import nan
from tests.gradient_check import GradientError, check_all
from tests.mistakes import ALL, NAMES, NONE, Carried, Mistakes, only

V, H, T = 7, 5, 6
PAGE = ROOT / "docs" / "nan.md"
CONFIG = ModelConfig(V, hidden=H)


def example(seed: int = 0, T: int = T) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, Carried]:
    """Weights, a window, and all that a window before may have left."""
    rng = np.random.default_rng(seed)
    params = mistakes.init(rng, V, H)
    params["b"] += 0.5 * rng.standard_normal(4 * H)
    text = rng.integers(0, V, T + 1)
    h, c, dh, dc = rng.standard_normal((4, H))
    return params, text[:-1], text[1:], Carried(np.tanh(h), c, dh, dc)


def check(made: Mistakes, names: str = "W U b Wy by", recurrent_state: Carried | None = None) -> None:
    """The project's gradient check on the weights named; raises GradientError."""
    params, inputs, targets, before = example()
    before = recurrent_state or before
    _, grads, _ = mistakes.loss_and_gradients(params, inputs, targets, before, made)
    chosen = {name: params[name] for name in names.split()}
    check_all(
        lambda: mistakes.loss_and_gradients(params, inputs, targets, before, made)[0],
        chosen,
        {name: grads[name] for name in chosen},
    )


def check_state(made: Mistakes) -> None:
    """The same on the state that comes in."""
    params, inputs, targets, before = example()
    _, h, _, tape = mistakes.forward(params, inputs, targets, before.h, before.c, made)
    _, dh, dc = mistakes.backward(params, tape, np.zeros_like(h), np.zeros_like(h), made)
    check_all(
        lambda: mistakes.forward(params, inputs, targets, before.h, before.c, made)[0],
        {"h": before.h, "c": before.c},
        {"h": dh, "c": dc},
    )


def ours(
    params: dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[float, dict[str, np.ndarray], model.State]:
    """The project's own loss, gradients and state on the same weights, under the hand-written names."""
    names = {"layer1.W": "W", "layer1.U": "U", "layer1.b": "b", "out.W": "Wy", "out.b": "by"}
    work = model.Workspace.empty(CONFIG, len(inputs), 1, np.float64)
    loss, grads, after = model.loss_and_gradients(
        {theirs: params[name] for theirs, name in names.items()},
        CONFIG,
        inputs[:, None],
        targets[:, None],
        model.State(h[None, None], c[None, None]),
        work,
    )
    return loss, {names[theirs]: g for theirs, g in grads.items()}, after


def fables(made: Mistakes, steps: int, chars: int = 20_050, **more: Any) -> list[mistakes.Row]:
    """The hand-written program at its own setting: 100 cells, windows of 100, plain descent at 0.1; up to its first NaN."""
    text = bundled_path("corpora", "fables.txt").read_text(encoding="utf-8")[:chars]
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(c) for c in text])
    rows: list[mistakes.Row] = []
    with np.errstate(all="ignore"):
        for row in mistakes.train(ids, len(alphabet), 100, 100, 0.1, steps, made, **more):
            rows.append(row)
            if not is_finite(row):
                break
    return rows


def is_finite(row: mistakes.Row) -> bool:
    return all(math.isfinite(value(row)) for _, value in nan.QUANTITIES)


# -- no mistake


def test_without_a_mistake_every_gradient_passes() -> None:
    check(NONE)
    check_state(NONE)


def test_without_a_mistake_it_equals_the_project() -> None:
    params, inputs, targets, before = example()
    loss, grads, after = mistakes.loss_and_gradients(params, inputs, targets, before)
    our_loss, our_grads, our_after = ours(params, inputs, targets, before.h, before.c)
    assert loss == pytest.approx(our_loss, rel=1e-13)
    for name, g in grads.items():
        np.testing.assert_allclose(our_grads[name], g, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(our_after.h[0, 0], after.h, rtol=1e-12)
    np.testing.assert_allclose(our_after.c[0, 0], after.c, rtol=1e-12)


@slow
def test_without_a_mistake_it_learns() -> None:
    rows = fables(NONE, 100)
    assert all(map(is_finite, rows))
    assert np.mean([row.loss_nats for row in rows[-20:]]) < rows[0].loss_nats - 0.8


# -- a slope taken of the activation, as if that were what went in


@pytest.mark.parametrize("name", ["sigmoid_slope", "tanh_slope"])
def test_a_slope_of_the_activation_fails_the_gradient_check(name: str) -> None:
    with pytest.raises(GradientError, match="W: relative error"):
        check(only(name))
    with pytest.raises(GradientError):
        check_state(only(name))


@pytest.mark.parametrize("name", ["sigmoid_slope", "tanh_slope"])
def test_the_check_says_that_it_is_in_the_layer_and_not_above_it(name: str) -> None:
    check(only(name), "Wy by")
    for weights in ("W", "U", "b"):
        with pytest.raises(GradientError, match=f"{weights}: relative error"):
            check(only(name), weights)


def test_a_wrong_slope_never_vanishes_and_a_right_one_does() -> None:
    """Why it ends in NaN: a gate that is shut stops a gradient, and with the wrong slope nothing ever does."""
    z = np.linspace(-40, 40, 1001)
    a, b = mistakes.sigmoid(z), np.tanh(z)
    assert mistakes.sigmoid_slope(a, wrong=False).min() < 1e-12
    assert mistakes.tanh_slope(b, wrong=False).min() < 1e-12
    assert mistakes.sigmoid_slope(a, wrong=True).min() > 0.19
    assert mistakes.tanh_slope(b, wrong=True).min() > 0.41


def test_the_slope_of_tanh_ends_in_nan_within_fifty_steps() -> None:
    assert not is_finite(fables(only("tanh_slope"), 50)[-1])


@slow
def test_the_slope_of_the_sigmoid_ends_in_nan_where_steps_are_long_and_right_slopes_do_not() -> None:
    assert not is_finite(fables(Mistakes(sigmoid_slope=True, gradients_summed=True), 30)[-1])
    assert is_finite(fables(Mistakes(gradients_summed=True), 30)[-1])


def test_the_project_takes_its_slopes_of_the_right_number() -> None:
    """Its whole model passes the check that the wrong slopes fail, on the same weights and the same window."""
    params, inputs, targets, before = example()
    _, grads, _ = ours(params, inputs, targets, before.h, before.c)
    check_all(
        lambda: ours(params, inputs, targets, before.h, before.c)[0], params, {name: grads[name] for name in params}
    )


# -- h and c swapped on the way in


def test_swapped_states_pass_the_check_of_the_weights_and_fail_that_of_the_state() -> None:
    check(only("state_swapped"))
    with pytest.raises(GradientError, match="h: relative error"):
        check_state(only("state_swapped"))


def halves_differ(made: Mistakes) -> float:
    """How far the loss of a text read in two windows is from that of the text read in one, in nats a character."""
    params, inputs, targets, before = example(T=2 * T)
    whole, *_ = mistakes.forward(params, inputs, targets, before.h, before.c)
    first, h, c, _ = mistakes.forward(params, inputs[:T], targets[:T], before.h, before.c)
    second, *_ = mistakes.forward(params, inputs[T:], targets[T:], h, c, made)
    return abs(first + second - whole) / (2 * T)


def test_swapped_states_make_two_windows_differ_from_the_whole() -> None:
    assert halves_differ(NONE) < 1e-14
    assert halves_differ(only("state_swapped")) > 1e-3


def test_two_windows_of_the_project_equal_the_whole() -> None:
    params, inputs, targets, before = example(T=2 * T)
    whole, *_ = ours(params, inputs, targets, before.h, before.c)
    first, _, after = ours(params, inputs[:T], targets[:T], before.h, before.c)
    second, *_ = ours(params, inputs[T:], targets[T:], after.h[0, 0], after.c[0, 0])
    assert (first + second) / 2 == pytest.approx(whole, rel=1e-14)


# -- the position fed in place of the character


def test_a_position_in_place_of_the_character_passes_the_gradient_check() -> None:
    """It is the right derivative of the wrong function, so something else must catch it."""
    check(only("position_fed"))


def oracle_loss(params: dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, before: Carried) -> float:
    y, _, _ = oracle.layer(params, np.eye(V)[inputs], before.h, before.c)
    return oracle.loss((params["Wy"] @ y.T + params["by"][:, None])[:, :, None], targets[:, None])


def test_a_position_in_place_of_the_character_differs_from_the_oracle() -> None:
    params, inputs, targets, before = example()
    expected = oracle_loss(params, inputs, targets, before)
    assert mistakes.loss_and_gradients(params, inputs, targets, before)[0] == pytest.approx(expected, rel=1e-13)
    assert ours(params, inputs, targets, before.h, before.c)[0] == pytest.approx(expected, rel=1e-13)
    fed = mistakes.loss_and_gradients(params, inputs, targets, before, only("position_fed"))[0]
    assert abs(fed - expected) > 1e-2


def test_what_a_model_reads_must_change_its_loss() -> None:
    """The quickest test for it: other characters in, the same ones to predict."""
    params, inputs, targets, before = example()
    other = (inputs + 1) % V

    def change(made: Mistakes) -> float:
        return abs(
            mistakes.loss_and_gradients(params, inputs, targets, before, made)[0]
            - mistakes.loss_and_gradients(params, other, targets, before, made)[0]
        )

    assert change(only("position_fed")) == 0
    assert change(NONE) > 1e-2
    assert ours(params, inputs, targets, before.h, before.c)[0] != ours(params, other, targets, before.h, before.c)[0]


@slow
def test_a_model_fed_with_positions_knows_no_more_than_one_that_reads_nothing() -> None:
    """A text in which each character decides the next one: to be learned at once, but not by who does not see it."""
    ids = np.random.default_rng(0).permutation(V)[np.arange(2000) % V]
    ids = np.delete(ids, np.arange(5, 2000, 31))  # or the position would tell

    def last(made: Mistakes) -> float:
        rows = list(mistakes.train(ids, V, 16, 20, 1.0, 250, made))
        return float(np.mean([row.loss_nats for row in rows[-50:]]))

    assert last(NONE) < 0.6
    assert last(only("position_fed")) > 0.8 * math.log(V)


# -- a gradient carried in from another window


def test_a_carried_gradient_fails_the_gradient_check_but_not_in_the_first_window() -> None:
    """Nothing has been carried yet in the first window: check the second."""
    check(only("gradient_carried"), recurrent_state=Carried.zero(H))
    with pytest.raises(GradientError):
        check(only("gradient_carried"))


def test_the_project_cuts_the_gradient_at_the_window() -> None:
    """Its gradients in a later window are those of a first one with the same state: nothing else is handed on."""
    params, inputs, targets, before = example()
    names = ("layer1.W", "layer1.U", "layer1.b", "out.W", "out.b")
    stack = dict(zip(names, (params[name] for name in ("W", "U", "b", "Wy", "by")), strict=True))
    state = model.State(before.h[None, None], before.c[None, None])
    work = model.Workspace.empty(CONFIG, T, 1, np.float64)
    _, fresh, _ = model.loss_and_gradients(stack, CONFIG, inputs[:, None], targets[:, None], state, work)
    fresh = {name: g.copy() for name, g in fresh.items()}
    model.loss_and_gradients(
        stack, CONFIG, targets[:, None], inputs[:, None], state, work
    )  # another window, the same buffers
    _, later, _ = model.loss_and_gradients(stack, CONFIG, inputs[:, None], targets[:, None], state, work)
    for name, g in fresh.items():
        np.testing.assert_array_equal(later[name], g)


# -- the last, shorter window run at full length


def pairs(made: Mistakes, chars: int = 20) -> list[tuple[int, int]]:
    """All (input, target) of one pass over the text 0, 1, 2, …"""
    windows = list(mistakes.windows(np.arange(chars), T, made))
    return [(int(i), int(o)) for inputs, targets in windows for i, o in zip(inputs, targets, strict=True)]


def test_an_overrun_window_reads_characters_twice_and_jumps_back() -> None:
    assert pairs(NONE) == [(k, k + 1) for k in range(19)]
    overrun = pairs(only("window_overrun"))
    assert len(overrun) == 24
    assert len(set(overrun)) == 19
    assert overrun[19] == (13, 14)  # after 18, in the places that the window before had filled
    assert pairs(only("window_overrun"), chars=19) == pairs(NONE, chars=19)  # where nothing is left over it is not seen


def test_every_window_of_the_project_is_full_and_in_one_piece() -> None:
    batches, cursor, rng = Batches(np.arange(20), 1, T), Cursor(), np.random.default_rng(0)
    for _ in range(5 * batches.windows):
        window = batches.next(cursor, rng)
        assert window.inputs.shape == (T, 1)
        assert (np.diff(window.inputs[:, 0]) == 1).all()
        np.testing.assert_array_equal(window.targets, window.inputs + 1)


# -- softmax without its shift


def test_an_unshifted_softmax_passes_the_gradient_check() -> None:
    check(only("softmax_unshifted"))


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e4), (np.float64, 710), (np.float32, 89)])
def test_large_logits_turn_an_unshifted_softmax_into_nan_and_the_project_stays_finite(dtype: type, size: float) -> None:
    logits = np.zeros(V, dtype)
    logits[1] = size
    with np.errstate(all="ignore"):
        assert np.isnan(mistakes.softmax(logits, unshifted=True)).any()
    assert np.isfinite(mistakes.softmax(logits, unshifted=False)).all()
    loss, gradient = losses.softmax_cross_entropy(logits[:, None].copy(), np.array([0]))
    assert loss == pytest.approx(size, rel=1e-5)
    assert np.isfinite(gradient).all()


@slow
def test_in_float32_it_is_the_unshifted_softmax_that_turns_long_steps_into_nan() -> None:
    long_steps = Mistakes(gradients_summed=True)
    assert all(map(is_finite, fables(long_steps, 30, dtype=np.float32)))
    unshifted = fables(Mistakes(gradients_summed=True, softmax_unshifted=True), 30, dtype=np.float32)
    assert not math.isfinite(unshifted[-1].loss_nats)
    assert math.isfinite(unshifted[-1].cell_max)  # the softmax was first


# -- biases drawn like weights


def share_kept(b: np.ndarray, H: int, steps: int = 10) -> float:
    """How much of the cell state is left after some steps with no input, on average over the cells."""
    return float(np.mean(mistakes.sigmoid(b[H : 2 * H])) ** steps)


def test_drawn_biases_begin_with_a_memory_of_a_few_characters() -> None:
    H = 100
    drawn = mistakes.init(np.random.default_rng(0), V, H, only("biases_drawn"))
    assert np.count_nonzero(drawn["b"]) == 4 * H
    assert share_kept(drawn["b"], H) < 0.002  # a half, ten times
    assert share_kept(mistakes.init(np.random.default_rng(0), V, H)["b"], H) > 0.04


def test_the_project_begins_with_the_forget_gate_open_and_no_other_bias() -> None:
    H = 100
    params = model.init(ModelConfig(V, hidden=H, layers=2), np.random.default_rng(0))
    for name in ("layer1.b", "layer2.b"):
        assert (params[name][H : 2 * H] == lstm.FORGET_BIAS).all()
        assert np.count_nonzero(params[name]) == H
        assert share_kept(params[name], H) > 0.04
    assert not params["out.b"].any()


# -- gradients summed over the window


def test_summed_gradients_are_not_those_of_the_loss_that_is_told() -> None:
    with pytest.raises(GradientError, match="W: relative error"):
        check(only("gradients_summed"))


def test_a_sum_is_the_window_times_the_mean_and_the_project_takes_the_mean() -> None:
    params, inputs, targets, before = example()
    _, summed, _ = mistakes.loss_and_gradients(params, inputs, targets, before, only("gradients_summed"))
    _, mean, _ = ours(params, inputs, targets, before.h, before.c)
    for name, g in summed.items():
        np.testing.assert_allclose(g, T * mean[name], rtol=1e-11, atol=1e-14)


@slow
def test_summed_gradients_throw_the_loss_above_chance_where_the_mean_learns() -> None:
    chance = math.log(57)
    assert max(row.loss_nats for row in fables(NONE, 40)) < chance + 0.1
    rows = fables(only("gradients_summed"), 40)
    assert np.mean([row.loss_nats for row in rows[-10:]]) > 2 * chance
    assert rows[-1].cell_max > 1000  # the gates are stuck open: every character adds one
    assert all(map(is_finite, rows))  # dead, but not NaN


def test_clipping_bounds_the_step_and_is_on_unless_it_is_turned_off() -> None:
    grads = {"W": np.full((3, 4), 1e6)}
    assert optim.clip_global_norm(grads, TrainConfig().clip) > 1e6
    assert optim.norm(grads) == pytest.approx(TrainConfig().clip)
    assert TrainConfig().clip > 0


# -- all of them


@slow
def test_all_mistakes_together_end_in_nan_whichever_one_is_put_right() -> None:
    """Why the gradient check comes first. Without tanh's slope it is a matter of luck, so that is left out here."""
    for name in (None, *NAMES):
        made = ALL if name is None else replace(ALL, **{name: False})
        if name != "tanh_slope":
            assert not is_finite(fables(made, 150)[-1]), name


@pytest.mark.parametrize("rate", sweep([0.1, 10], 10))
def test_the_project_stays_finite_at_the_same_setting(charlstm: Any, folder: Path, rate: float) -> None:
    """A mean at rate 10 takes steps as long as a sum over 100 characters at 0.1."""
    text = bundled_path("corpora", "fables.txt").read_text(encoding="utf-8")[:20_050]
    (folder / "part.txt").write_text(text, encoding="utf-8")
    setting = "--hidden 100 --layers 1 --batch 1 --seq 100 --optimizer sgd --clip 0 --steps 60 --display none"
    result = charlstm("train", "part.txt", "--lr", rate, *setting.split())
    assert result.status == 0, result.err
    saved = list(Path("checkpoints").glob("*.npz"))
    assert saved
    assert all(map(nan.is_finite, saved))


# -- the page and its script


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_ten_lines_of_the_page_run_as_they_are_pasted_and_tell_right_from_wrong() -> None:
    code = next(block for block in blocks("python") if "def gradient_errors" in block)
    lines = code[code.index("def ") :].split("\n\n")[0].splitlines()
    assert len([line for line in lines if line.strip() and '"""' not in line]) == 10
    told, names = io.StringIO(), {}  # type: ignore[var-annotated]
    with contextlib.redirect_stdout(told):
        exec(code, names)
    right, wrong = (float(line.split()[-1]) for line in told.getvalue().splitlines())
    assert right < 1e-7 < 1e-3 < wrong

    for made in (NONE, only("sigmoid_slope"), only("tanh_slope")):
        params, inputs, targets, before = example()
        _, grads, _ = mistakes.loss_and_gradients(params, inputs, targets, before, made)

        def loss(p: Any = params, i: Any = inputs, t: Any = targets, b: Any = before) -> float:
            return mistakes.loss_and_gradients(p, i, t, b)[0]

        errors = dict(names["gradient_errors"](loss, params, grads))
        assert errors.keys() == params.keys()
        for name, error in errors.items():
            assert (error < 1e-7) == (made == NONE or name in ("Wy", "by")), (made, name, error)


def test_the_page_tells_of_every_mistake_and_holds_what_the_script_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    explained, measured = text.split(nan.BEGIN)
    for title in nan.TITLES.values():
        assert f"### {title[0].upper()}{title[1:]}" in explained
        assert f"| {title} |" in measured
    assert nan.END in measured
    assert nan.TITLES.keys() == set(NAMES)


def test_the_command_of_the_page_is_the_setting_that_was_measured(charlstm: Any, text: Path) -> None:
    command = next(line for block in blocks("sh") for line in block.splitlines() if line.startswith("charlstm train"))
    assert (
        f"--hidden {nan.HIDDEN} --layers 1 --batch 1 --seq {nan.SEQ} --optimizer sgd --lr {nan.LR} --clip 0" in command
    )
    words = command.replace("TEXT", text.name).split()[1:]
    assert charlstm(*words, "--steps", 3, "--display", "none").status == 0


def test_the_script_draws_a_run_and_tells_where_it_broke() -> None:
    row = mistakes.Row(1, 4.0, 1.0, 2.0, 30.0)
    rows = [row, mistakes.Row(2, 3.0, 2.0, 4.0, 31.0), mistakes.Row(3, 3.0, 9.0, math.inf, math.nan)]
    broken, whole = nan.Run(rows, 3, "gradient"), nan.Run(rows[:2], None, "")
    assert nan.last_steps([("a mistake", broken)], 1).endswith("| a mistake | 3 | 3 | 9 | **inf** | **nan** |")
    told = nan.row_of_table("a mistake", [broken, whole], 3)
    assert told == ("| a mistake | **NaN** at 3 (1 of 2 seeds) | gradient | 3.33–3.5 | 2–9 | 4 | 31 |")
    drawn = nan.curves("a mistake", broken).splitlines()
    assert drawn[0] == "a mistake: NaN at step 3"
    assert len(drawn) == 3 + nan.PANEL_HEIGHT


def test_the_script_writes_between_its_marks_and_nowhere_else(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(f"before\n{nan.BEGIN}\nold\n{nan.END}\nafter\n", encoding="utf-8")
    for measured in ("one", "two"):
        nan.write(page, measured)
    assert page.read_text(encoding="utf-8") == f"before\n{nan.BEGIN}\n\ntwo\n\n{nan.END}\nafter\n"


# -- the same run twice


def test_two_hundred_steps_lose_what_the_plain_form_loses() -> None:
    """The fast form in float32, the plain one in float64, the same windows and plain descent with clipping: only rounding differs."""
    H, T, steps = 24, 20, 200
    text = bundled_path("corpora", "fables.txt").read_text(encoding="utf-8")[: T * 50 + 1]
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(c) for c in text])
    V = len(alphabet)
    plain = mistakes.init(np.random.default_rng(5), V, H)
    names = {"layer1.W": "W", "layer1.U": "U", "layer1.b": "b", "out.W": "Wy", "out.b": "by"}
    fast = {ours: plain[theirs].astype(np.float32) for ours, theirs in names.items()}
    config = ModelConfig(V, hidden=H)
    work, state, recurrent_state = model.Workspace.empty(config, T, 1), model.State.zero(config, 1), Carried.zero(H)
    losses = []
    for step in range(steps):
        start = step * T % (len(ids) - 1)
        window = ids[start : start + T + 1]
        loss, grads, state = model.loss_and_gradients(fast, config, window[:-1, None], window[1:, None], state, work)
        plain_loss, plain_grads, recurrent_state = mistakes.loss_and_gradients(
            plain, window[:-1], window[1:], recurrent_state
        )
        losses.append((loss, plain_loss))
        for params, g in ((fast, grads), (plain, plain_grads)):
            optim.clip_global_norm(g, 1.0)
            optim.sgd(params, g, {}, 0.5, step + 1)
    ours, theirs = np.array(losses).T
    np.testing.assert_allclose(ours, theirs, rtol=2e-4)
    assert theirs[-50:].mean() < theirs[:50].mean() - 0.3  # it was a run in which something happened
