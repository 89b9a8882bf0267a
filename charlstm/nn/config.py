"""The five numbers that define a model; without NumPy, so that `--help` can read the defaults quickly."""

from __future__ import annotations

from dataclasses import dataclass

EMBED_ABOVE = 192
"""Vocabularies larger than this get an embedding; up to this size a one-hot product is faster."""

EMBEDDING_WIDTH = 96
"""E, the width of that embedding."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model: a stack of LSTM layers with a softmax projection.

    ``embedding`` is the width of the character embedding; 0 feeds one-hot characters. ``dropout`` is the dropout rate of each
    layer's outputs in training; any excess over `model.RECURRENT_FROM` also applies to recurrent weights.
    """

    vocabulary: int
    hidden: int = 256
    layers: int = 1
    embedding: int = 0
    dropout: float = 0.0

    @property
    def input_width(self) -> int:
        """D of the first layer."""
        return self.embedding or self.vocabulary


def embedding_for(vocabulary: int) -> int:
    """Return the embedding width for a vocabulary of this size; 0 means one-hot characters."""
    return EMBEDDING_WIDTH if vocabulary > EMBED_ABOVE else 0
