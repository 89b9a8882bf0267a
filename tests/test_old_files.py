"""A file that was written when format 1 was new; it must stay readable, so it is never written anew."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from charlstm.storage import checkpoint
from charlstm.text import corpus
from charlstm.training import loop
from tests.conftest import ROOT, VERSES, Result

FROZEN = ROOT / "tests" / "data" / "format1.npz"


def test_an_old_run_is_read_as_it_was_written() -> None:
    run = checkpoint.load_run(FROZEN)
    assert (run.step, run.schedule.last, run.config.hidden, run.config.layers) == (300, 300, 12, 2)
    assert run.vocabulary.characters == "".join(sorted(set(VERSES)))
    assert run.best_val_nats == pytest.approx(1.9098713532642082, rel=1e-12)
    with np.load(FROZEN, allow_pickle=False) as members:
        for name, p in run.params.items():
            np.testing.assert_array_equal(p, members[f"param/{name}"])


def test_an_old_run_can_be_sampled_and_told_of(charlstm: Callable[..., Result]) -> None:
    told = json.loads(charlstm("info", FROZEN, "--json").out)
    assert (told["format"], told["step"], told["vocabulary"]) == (1, 300, 26)
    text = charlstm("sample", FROZEN, "--temp", 0, "--length", 40, "--seed", 1).out
    assert len(text) == 40
    assert set(text) <= set(VERSES)


def test_an_old_run_goes_on() -> None:
    run = checkpoint.load_run(FROZEN)
    ids = run.vocabulary.encode(VERSES * 20).astype(np.uint8)
    found = corpus.Corpus(ids, run.vocabulary, run.text)
    run.schedule.end(320, 10, 64, 400)
    before = run.best_val_nats
    for _ in loop.train(run, *found.split(0.1)):
        pass
    assert run.step == 320
    assert before is not None
    assert run.history[-1].val_nats == pytest.approx(before, abs=0.3)
