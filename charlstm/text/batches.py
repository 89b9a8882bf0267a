"""Cuts a text into N parallel streams, read window by window, and decides when a stream's state is reset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from charlstm.nn.config import COUNT
from charlstm.nn.types import Ids
from charlstm.text.ids import TextIds

RESET_CHARS = 2048
"""Maximum number of characters that a stream reads before its state is reset to zero.

Samples start from a zero state too; a state that is never reset drifts away from what the model starts from."""


@dataclass
class Cursor:
    """Position in the text: all that a batcher has to remember."""

    epoch: Annotated[int, COUNT] = 0  # epochs begun
    window: Annotated[int, COUNT] = 0  # next window of this epoch
    offset: Annotated[int, COUNT] = 0  # where the streams of this epoch begin in the text
    phase: Annotated[int, COUNT] = 0  # shifts the resets in this epoch


@dataclass(frozen=True)
class Window:
    """One window of all streams."""

    inputs: Ids  # (T, N)
    targets: Ids  # (T, N), the character after each input
    reset_mask: NDArray[np.bool_]  # (N,), streams whose state must be reset to zero before this window


def fit(chars: int, batch: int, seq: int) -> tuple[int, int]:
    """Return the batch size and window length that fit a training text, at most those requested.

    Every stream needs at least one whole window and the character after it.
    """
    seq = max(1, min(seq, chars - 1))
    return max(1, min(batch, (chars - 1) // seq)), seq


def reset_every(seq: int) -> int:
    """Return after how many windows of this length a stream is reset."""
    return max(1, RESET_CHARS // seq)


class Batches:
    """N parallel streams, each a contiguous part of the text, read in windows of T characters.

    An epoch has `windows` windows, all of full length. Its streams start at a random offset, so the few characters that
    do not fill a window differ between epochs. Targets never reach beyond the text.

    A stream is reset at least every `reset_every` windows, staggered over the streams and at other places in each epoch. A
    step adds less than 1 to |c|, so |c| never exceeds the number of characters between resets, however long the run. If
    `reset_every` is 0, streams are reset only at the start of an epoch.
    """

    def __init__(self, ids: TextIds, N: int, T: int, reset_every: int = 0) -> None:
        self.ids, self.N, self.T, self.reset_every = ids, N, T, reset_every
        self.windows = (len(ids) - 1) // (N * T)
        if self.windows < 1:
            raise ValueError(f"{len(ids)} characters are too few for {N} streams of {T}: see fit()")
        self.slack = len(ids) - 1 - self.windows * N * T

    def next(self, cursor: Cursor, rng: np.random.Generator) -> Window:
        """Return the window at the cursor and advance the cursor; all random numbers come from `rng`."""
        if cursor.window == 0:
            cursor.epoch += 1
            cursor.offset = int(rng.integers(self.slack + 1))
            cursor.phase = int(rng.integers(self.reset_every + 1))
        reset_mask = np.full(self.N, cursor.window == 0)
        if self.reset_every:
            turns = np.arange(self.N) * self.reset_every // self.N  # staggered, so that few streams are reset at a time
            reset_mask |= (turns + cursor.window + cursor.phase) % self.reset_every == 0
        starts = cursor.offset + (np.arange(self.N) * self.windows + cursor.window) * self.T  # (N,)
        places = np.arange(self.T + 1)[:, None] + starts  # (T+1, N)
        window = self.ids[places].astype(np.intp)
        cursor.window = (cursor.window + 1) % self.windows
        return Window(window[:-1], window[1:], reset_mask)
