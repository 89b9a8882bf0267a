"""Windows over parallel streams: what is adjacent, what is fresh, what is never crossed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from charlstm.text.batches import Batches, Cursor, fit


def read_pass(chars: int, N: int, T: int, seed: int = 0, reset: int = 0):
    batches, cursor, rng = Batches(np.arange(chars), N, T, reset), Cursor(), np.random.default_rng(seed)
    return batches, [batches.next(cursor, rng) for _ in range(batches.windows)], cursor, rng


@pytest.mark.parametrize(("chars", "N", "T"), [(1000, 4, 7), (29, 4, 7), (8, 1, 7), (2, 1, 1), (113, 3, 10)])
def test_every_target_is_the_character_after_its_input(chars: int, N: int, T: int) -> None:
    _, windows, _, _ = read_pass(chars, N, T)
    assert windows
    for window in windows:
        assert window.inputs.shape == window.targets.shape == (T, N)
        np.testing.assert_array_equal(window.targets, window.inputs + 1)  # the text is 0, 1, 2, …: nothing wraps
        assert window.targets.max() < chars


def test_a_stream_goes_on_where_its_last_window_ended() -> None:
    _, windows, _, _ = read_pass(1000, 4, 7)
    for before, after in itertools.pairwise(windows):
        np.testing.assert_array_equal(after.inputs[0], before.targets[-1])


def test_no_character_is_read_twice_in_a_pass_and_few_are_left_out() -> None:
    _, windows, _, _ = read_pass(1000, 4, 7)
    read = np.concatenate([w.inputs.ravel() for w in windows])
    assert len(set(read.tolist())) == len(read) > 1000 - 4 * 7 - 1


def test_state_is_fresh_at_the_start_of_a_pass_and_at_no_other_window() -> None:
    batches, windows, cursor, rng = read_pass(1000, 4, 7)
    assert windows[0].reset_mask.all()
    assert not any(w.reset_mask.any() for w in windows[1:])
    assert batches.next(cursor, rng).reset_mask.all()
    assert not batches.next(cursor, rng).reset_mask.any()


@pytest.mark.parametrize(("N", "reset"), [(10, 7), (3, 8), (1, 1), (64, 5)])
def test_no_stream_goes_on_for_longer_than_the_resets_allow(N: int, reset: int) -> None:
    """In several passes; and not all streams start fresh at once."""
    batches, cursor, rng = Batches(np.arange(N * 5 * 41 + 9), N, 5, reset), Cursor(), np.random.default_rng(0)
    age, oldest, places = np.zeros(N, int), 0, set()
    for _ in range(4 * batches.windows):
        first = cursor.window == 0
        fresh = batches.next(cursor, rng).reset_mask
        age = np.where(fresh, 1, age + 1)
        oldest = max(oldest, int(age.max()))
        if not first:
            places.add(int(fresh.sum()))
    assert oldest == reset
    assert max(places) <= -(-N // reset)


def test_passes_begin_at_different_offsets() -> None:
    batches, cursor, rng = Batches(np.arange(1000), 4, 7), Cursor(), np.random.default_rng(0)
    starts = set()
    for _ in range(batches.windows * 12):
        window = batches.next(cursor, rng)
        if cursor.window == 1 % batches.windows:
            starts.add(int(window.inputs[0, 0]))
    assert len(starts) > 3


@pytest.mark.parametrize("chars", [29, 30, 40])
def test_every_character_is_a_target_in_some_epoch_and_the_first_one_is_read(chars: int) -> None:
    batches, cursor, rng = Batches(np.arange(chars), 4, 7), Cursor(), np.random.default_rng(0)
    windows = [batches.next(cursor, rng) for _ in range(60 * batches.windows)]
    assert {int(c) for w in windows for c in w.targets.flat} == set(range(1, chars))
    assert any(0 in w.inputs for w in windows)


def test_the_cursor_and_the_generator_are_all_there_is_to_remember() -> None:
    batches, windows, _, _ = read_pass(1000, 4, 7, reset=5)
    cursor, rng = Cursor(), np.random.default_rng(0)
    for _ in range(5):
        batches.next(cursor, rng)
    again = Batches(np.arange(1000), 4, 7, 5)
    for expected in windows[5:]:
        window = again.next(cursor, rng)
        np.testing.assert_array_equal(window.inputs, expected.inputs)
        np.testing.assert_array_equal(window.reset_mask, expected.reset_mask)


@pytest.mark.parametrize("chars", [2, 3, 10, 64, 65, 66, 200, 5000, 100_000])
def test_what_fits_can_be_read(chars: int) -> None:
    N, T = fit(chars, 32, 64)
    assert 1 <= N <= 32
    assert 1 <= T <= 64
    assert Batches(np.zeros(chars, np.uint8), N, T).windows >= 1


def test_a_long_text_gets_what_was_asked_for() -> None:
    assert fit(100_000, 32, 64) == (32, 64)
