"""The text and the model that ship with the program."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from charlstm.storage import checkpoint
from charlstm.text.sources import bundled_path
from tests.conftest import ROOT

FABLES = (ROOT / "corpora" / "fables.txt").read_text(encoding="utf-8")


def test_the_fables_are_long_enough_and_plain() -> None:
    assert len(FABLES) >= 100_000
    assert set(FABLES) <= {"\n", *map(chr, range(32, 127))}


def test_no_sentence_of_the_fables_stands_twice() -> None:
    sentences = [" ".join(s.split()) for s in re.split(r'(?<=[.?!])"?\s+', FABLES)]
    whole = [s for s in sentences if len(s.split()) > 2]  # not "he asked."
    assert len(whole) > 1500
    assert [s for s, n in Counter(whole).items() if n > 1] == []


def test_the_model_that_ships_is_small_and_writes_the_fables_alphabet() -> None:
    path = Path(bundled_path("checkpoints", "fables.npz"))
    assert path.stat().st_size <= 1_500_000
    found = checkpoint.load(path)
    assert found.char_model.vocabulary.characters == "".join(sorted(set(FABLES)))
    assert found.text.chars == len(FABLES)
    assert not any("/" in source for source in found.text.sources), "a path of somebody's machine"
