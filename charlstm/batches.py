"""A text cut into N parallel streams, read window by window; says when a stream starts fresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn.types import Ids


@dataclass
class Cursor:
    """Where the reading stands: all that a batcher has to remember."""

    epoch: int = 0  # passes that were begun
    window: int = 0  # the next window of this pass
    offset: int = 0  # where the streams of this pass begin in the text
    phase: int = 0  # when they start fresh in this pass


@dataclass(frozen=True)
class Window:
    """One window of all streams."""

    inputs: Ids  # (T, N)
    targets: Ids  # (T, N), the characters that follow the inputs in the text
    fresh: NDArray[np.bool_]  # (N,), streams whose state must be zero before this window


def fit(chars: int, batch: int, seq: int) -> tuple[int, int]:
    """The batch and window that a text to train on allows, at most those asked for.

    Every stream must hold at least one whole window and the character after it.
    """
    seq = max(1, min(seq, chars - 1))
    return max(1, min(batch, (chars - 1) // seq)), seq


class Batches:
    """N streams side by side, each a contiguous stretch of the text, read in windows of T characters.

    A pass has `windows` windows of full length. The stretches of a pass start at an offset drawn anew each time, so the few
    characters that do not fill a window are other ones each time; targets never reach beyond the text.

    A stream starts fresh every `reset` windows at the latest, one stream after the other, at other places in each pass. As a step adds less
    than 1 to |c|, no |c| can then exceed the characters in so many windows, however long a run is. 0 resets at the beginning of a pass only.
    """

    def __init__(self, ids: NDArray[Any], N: int, T: int, reset: int = 0) -> None:
        self.ids, self.N, self.T, self.reset = ids, N, T, reset
        self.windows = (len(ids) - 1) // (N * T)
        if self.windows < 1:
            raise ValueError(f"{len(ids)} characters do not hold {N} streams of {T}: see fit()")
        self.slack = len(ids) - 1 - self.windows * N * T

    def next(self, cursor: Cursor, rng: np.random.Generator) -> Window:
        """The window that the cursor points to; moves the cursor on. Random numbers come from `rng` alone."""
        if cursor.window == 0:
            cursor.epoch += 1
            cursor.offset = int(rng.integers(self.slack + 1))
            cursor.phase = int(rng.integers(self.reset + 1))
        fresh = np.full(self.N, cursor.window == 0)
        if self.reset:
            turns = np.arange(self.N) * self.reset // self.N  # so that a few streams at a time start fresh
            fresh |= (turns + cursor.window + cursor.phase) % self.reset == 0
        starts = cursor.offset + (np.arange(self.N) * self.windows + cursor.window) * self.T  # (N,)
        places = np.arange(self.T + 1)[:, None] + starts  # (T+1, N)
        window = self.ids[places].astype(np.intp)
        cursor.window = (cursor.window + 1) % self.windows
        return Window(window[:-1], window[1:], fresh)
