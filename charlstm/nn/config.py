"""What a model is, in five numbers; imports nothing, so that the command line can read the defaults before NumPy loads."""

from __future__ import annotations

from dataclasses import dataclass

EMBED_ABOVE = 192
"""Vocabularies larger than this get an embedding; below it a one-hot product is the faster of the two."""

EMBEDDING_WIDTH = 96
"""Width of that embedding."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model: a stack of LSTM layers with a softmax projection.

    ``embedding`` is the width of the character embedding; 0 feeds characters as one-hot columns. ``dropout`` is the share of
    each layer's outputs that is dropped while training; recurrent weights are dropped by what is above `model.RECURRENT_FROM`.
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
    """The embedding width that suits a vocabulary of this size; 0 for none."""
    return EMBEDDING_WIDTH if vocabulary > EMBED_ABOVE else 0
