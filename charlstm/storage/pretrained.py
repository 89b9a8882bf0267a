"""Weights to start from: those of a run, or those of the bundled base if it suits the text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.errors import UsageError
from charlstm.inference import evaluation
from charlstm.inference.marks import marks, shared
from charlstm.nn.config import ModelConfig
from charlstm.storage import checkpoint
from charlstm.storage.runs import SUFFIX, find_run
from charlstm.text.corpus import Corpus
from charlstm.text.ids import TextIds
from charlstm.text.sources import BASE, bundled_path
from charlstm.text.vocabulary import Vocabulary
from charlstm.training.history import PretrainedInfo
from charlstm.training.state import Pretrained

JUDGED_CHARS = 8192
"""How many characters, from the start of the training text, the base is judged by."""
LEAST_KNOWN, LEAST_GAIN_NATS = 0.95, 0.75
"""The base suits a text if it knows this fraction of these characters, and predicts them better than their own unigram
frequencies by this many nats per character."""

MARKS_SUFFIX = ".marks.npy"
"""End of the name of the file with the `marks` of the base's training text."""
READ_SHARE = 0.05
"""Smallest fraction of a text that a user is told of; less can be quotations."""


def from_run(run: str, folder: Path, wanted: Mapping[str, Any]) -> Pretrained:
    """Load the best weights of a run.

    Args:
        run: name or path of the run.
        folder: the checkpoint folder.
        wanted: `hidden` and `layers` of the model that is to start from them, as far as the user gave them.

    Raises:
        UsageError: the run does not exist, or does not fit into such a model.
        CheckpointError: its file can't be used.
    """
    weights = _load(run, find_run(run, folder, best=True))
    if why := _misfit(weights.model.config, wanted):
        raise UsageError(f"the weights of {run!r} can't become a model of this size: {why}")
    return weights


def for_text(text: Corpus, train_ids: TextIds, wanted: Mapping[str, Any]) -> tuple[Pretrained | None, str]:
    """Load the base if it suits a text and the size that was asked for.

    Args:
        text: the text, whose vocabulary the ids belong to.
        train_ids: the training text (chars,); the held-out text has no influence.
        wanted: as for `from_run`.

    Returns:
        the base, or None; and one sentence that explains the decision, empty if there is no base or the size excludes it.
    """
    path = bundled_path("checkpoints", BASE + SUFFIX)
    if not path.is_file():
        return None, ""
    base = _load(BASE, path)
    if _misfit(base.model.config, wanted):
        return None, ""
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
    losses = f"{nats:.2f} nats per character before training, where letter frequencies have {unigram_nats:.2f}"
    if nats > unigram_nats - LEAST_GAIN_NATS:
        return None, f"starts from random weights, because the base {BASE!r} does not suit the text: {losses}"
    return base, f"starts from the base {BASE!r}, which suits the text: {losses} (`init_from` none: random weights)"


def read_before(ids: TextIds, vocabulary: Vocabulary) -> str:
    """Return a clause that says how much of a text (chars,) the base was trained on, "" if that is little or not known."""
    path = bundled_path("checkpoints", BASE + MARKS_SUFFIX)
    share = shared(marks(ids, vocabulary), np.load(path)) if path.is_file() else 0.0
    if share < READ_SHARE:
        return ""
    return f"; it has read {share:.0%} of this text before, which flatters the held-out loss"


def _misfit(config: ModelConfig, wanted: Mapping[str, Any]) -> str:
    """Return why a model can't begin as part of one of the wanted size, and what to do; "" if it can."""
    for key in ("hidden", "layers"):
        least = getattr(config, key)
        if wanted.get(key, least) < least:
            return f"leave out `{key}` {wanted[key]}, or use at least {least}"
    if config.layers > 1 and not config.residual and wanted.get("layers", 0) > config.layers:
        return f"they have no residual connections, so leave out `layers` {wanted['layers']}"
    return ""


def _load(name: str, path: Path) -> Pretrained:
    info = PretrainedInfo(name, hashlib.sha256(path.read_bytes()).hexdigest())
    return Pretrained(info, checkpoint.load(path).char_model)
