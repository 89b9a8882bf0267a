"""Tells how much of a text is in another, of which only the hashes of a few passages are kept.

Passages are compared by their Latin letters alone, so that lines, capitals and punctuation may differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlstm.inference.novelty import passage_hashes
from charlstm.text.ids import TextIds
from charlstm.text.vocabulary import Vocabulary

LETTERS = 40
"""Length of a passage."""
ONE_IN_BITS = 10
"""A passage is kept if its hash begins with this many zero bits: one in 1,024."""
FEWEST = 5
"""A share of fewer marks than this says nothing."""
BLOCK = 1 << 20
"""Characters that are looked at together."""


def marks(ids: TextIds, vocabulary: Vocabulary, most_chars: int = 1 << 22) -> NDArray[np.uint32]:
    """Return the hashes (marks,) of the passages of a text that are kept, each once, in ascending order.

    Args:
        ids: the text.
        vocabulary: what the ids mean.
        most_chars: what follows after this many characters is not read.
    """
    letters = np.array([ord(c.lower()) if c.isascii() and c.isalpha() else 0 for c in vocabulary.characters], np.uint8)
    marks = [np.empty(0, np.uint32)]
    before = np.empty(0, np.uint8)  # the letters of a passage that may end in the next block
    for start in range(0, min(len(ids), most_chars), BLOCK):
        block = letters[np.asarray(ids[start : min(start + BLOCK, most_chars)])]
        block = np.concatenate([before, block[block > 0]])
        if len(block) < LETTERS:
            before = block
            continue
        hashes = passage_hashes(block, LETTERS)
        kept = hashes[hashes < 1 << (64 - ONE_IN_BITS)]
        marks.append((kept >> np.uint64(32 - ONE_IN_BITS)).astype(np.uint32))
        before = block[len(block) - LETTERS + 1 :]
    return np.unique(np.concatenate(marks))


def shared(theirs: NDArray[np.uint32], others: NDArray[np.uint32]) -> float:
    """Return the fraction of a text's marks that another has, or 0 if it has fewer than `FEWEST`."""
    return float(np.isin(theirs, others).mean()) if len(theirs) >= FEWEST else 0.0
