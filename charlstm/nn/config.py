"""The numbers that define a model, with their limits; without NumPy, so that `--help` can read the defaults quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

EMBED_ABOVE = 192
"""Vocabularies larger than this get an embedding; up to this size a one-hot product is faster."""

EMBEDDING_WIDTH = 96
"""E, the width of that embedding."""


class Range(NamedTuple):
    """The numbers that a field may have: ``Annotated[float, Range(0, 1, open="high")]``. Infinity and NaN are in none."""

    low: float
    high: float | None = None  # None: no upper limit
    open: str = ""  # "low" or "high": that bound itself is excluded

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or not (isinstance(value, int) or math.isfinite(value)):
            return False
        above = self.low < value if self.open == "low" else self.low <= value
        return above and (self.high is None or (value < self.high if self.open == "high" else value <= self.high))

    def __str__(self) -> str:
        """Return the range in words: "at least 1 and at most 64"."""
        low = f"{'above' if self.open == 'low' else 'at least'} {self.low:g}"
        return low if self.high is None else f"{low} and {'below' if self.open == 'high' else 'at most'} {self.high:g}"


COUNT = Range(0, 2**53)
"""A number of steps or characters: JSON passes integers up to this one through floats unchanged."""
METRIC = Range(0, 1e100)
"""A loss, a norm or a sum of them: far above what float32 can reach, far below where arithmetic with it overflows."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """The part of a model's shape that a user chooses.

    ``dropout`` is the dropout rate of each layer's outputs in training; any excess over `model.RECURRENT_FROM` also applies
    to recurrent weights.
    """

    hidden: Annotated[int, Range(1, 16384)] = 256
    layers: Annotated[int, Range(1, 64)] = 1
    dropout: Annotated[float, Range(0, 1, open="high")] = 0.0


@dataclass(frozen=True)
class ModelConfig(ModelSize):
    """The shape of a model: a stack of LSTM layers with a softmax projection.

    ``embedding`` is the width of the character embedding; 0 feeds one-hot characters. With ``residual``, every layer above the
    first adds its input to its output. With ``multiplicative``, the first layer has the matrix M of `charlstm.nn.lstm`.
    """

    vocabulary: Annotated[int, Range(1, 0x110000)]
    embedding: Annotated[int, Range(0, 16384)] = 0
    residual: bool = False
    multiplicative: bool = False

    @property
    def input_width(self) -> int:
        """D of the first layer."""
        return self.embedding or self.vocabulary


def embedding_for(vocabulary: int) -> int:
    """Return the embedding width for a vocabulary of this size; 0 means one-hot characters."""
    return EMBEDDING_WIDTH if vocabulary > EMBED_ABOVE else 0
