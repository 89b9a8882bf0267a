"""Weights to start from: those of a run, or those of the bundled base if it suits the text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from charlstm.inference import evaluation
from charlstm.storage import checkpoint
from charlstm.storage.runs import SUFFIX, find_run
from charlstm.text.corpus import Corpus
from charlstm.text.ids import TextIds
from charlstm.text.sources import BASE, bundled_path
from charlstm.training.history import PretrainedInfo
from charlstm.training.state import Pretrained

JUDGED_CHARS = 8192
"""How many characters, from the start of the training text, the base is judged by."""
LEAST_KNOWN, LEAST_GAIN_NATS = 0.95, 0.75
"""The base suits a text if it knows this fraction of these characters, and predicts them better than their own unigram
frequencies by this many nats per character."""


def from_run(run: str, folder: Path) -> Pretrained:
    """Load the best weights of a run.

    Raises:
        UsageError: the run does not exist.
        CheckpointError: its file can't be used.
    """
    return _load(run, find_run(run, folder, best=True))


def for_text(text: Corpus, train_ids: TextIds) -> tuple[Pretrained | None, str]:
    """Load the base if it suits a text.

    Args:
        text: the text, whose vocabulary the ids belong to.
        train_ids: the training text (chars,); the held-out text has no influence.

    Returns:
        the base, or None; and one sentence that explains the decision, empty if there is no base.
    """
    path = bundled_path("checkpoints", BASE + SUFFIX)
    if not path.is_file():
        return None, ""
    base = _load(BASE, path)
    head = np.asarray(train_ids[:JUDGED_CHARS])
    ids, _ = base.model.vocabulary.translate(head, text.vocabulary)
    known = len(ids) / len(head)
    if known < LEAST_KNOWN or len(ids) < 2:
        return (
            None,
            f"starts from random weights, because the base {BASE!r} knows only {known:.0%} of the text's characters",
        )
    nats = evaluation.evaluate(base.model.params, base.model.config, np.asarray(ids, np.intp))
    unigram_nats = evaluation.unigram_nats(head, head, len(text.vocabulary))
    found = f"{nats:.2f} nats per character before training, where letter frequencies have {unigram_nats:.2f}"
    if nats > unigram_nats - LEAST_GAIN_NATS:
        return None, f"starts from random weights, because the base {BASE!r} does not suit the text: {found}"
    return base, f"starts from the base {BASE!r}, which suits the text: {found} (`init_from` none: random weights)"


def _load(name: str, path: Path) -> Pretrained:
    info = PretrainedInfo(name, hashlib.sha256(path.read_bytes()).hexdigest())
    return Pretrained(info, checkpoint.load(path).char_model)
