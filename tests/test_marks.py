"""Texts that the bundled base has read are known by the hashes of some passages, and no others are."""

from __future__ import annotations

import numpy as np
import pytest

from charlstm.inference import marks as module
from charlstm.inference.marks import FEWEST, marks, shared
from charlstm.text.vocabulary import Vocabulary
from tests.conftest import ROOT

FABLES = (ROOT / "corpora" / "fables.txt").read_text(encoding="utf-8")


def marks_of(text: str) -> np.ndarray:
    vocabulary = Vocabulary("".join(sorted(set(text))))
    return marks(vocabulary.encode(text), vocabulary)


def test_a_part_of_a_text_is_known_however_it_is_set() -> None:
    whole, half = marks_of(FABLES), FABLES[: len(FABLES) // 2]
    assert len(whole) == pytest.approx(len(FABLES) / 1024, rel=0.4)
    for text in (half, half.upper(), half.replace(" ", "\n"), half.replace(",", " – "), half.replace(" ", " İ ")):
        assert shared(marks_of(text), whole) == 1
    assert 0.3 < shared(whole, marks_of(half)) < 0.7


def test_another_text_of_the_same_words_is_not() -> None:
    words = FABLES.split()
    np.random.default_rng(0).shuffle(words)
    assert shared(marks_of(" ".join(words)), marks_of(FABLES)) == 0


def test_a_text_with_too_few_marks_shares_nothing() -> None:
    few = FABLES[:2000]
    assert len(marks_of(few)) < FEWEST
    assert shared(marks_of(few), marks_of(FABLES)) == 0
    assert len(marks_of("…")) == len(marks_of("short")) == 0


def test_blocks_do_not_change_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = marks_of(FABLES[:50_000])
    for size in (7, 1000):
        monkeypatch.setattr(module, "BLOCK", size)
        np.testing.assert_array_equal(marks_of(FABLES[:50_000]), whole)
