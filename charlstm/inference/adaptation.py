"""Dynamic evaluation: a model that learns from each segment of a text, after it has predicted it (Krause et al. 2018).

No character is learned from before it is predicted, so the loss is that of an honest prediction; but the model that ends
is not the one that began. It is a protocol of its own, and comparable only with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlstm.nn import loss, model
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Arrays
from charlstm.text.ids import TextIds

SEGMENT = 32
"""Characters between two steps."""
RATE, DECAY, EPSILON = 1e-3, 1e-3, 1e-5
"""Learning rate, the fraction of the way back to the trained weights that each step goes, and what is added to the root mean square of
the gradients."""


def char_nll(params: Arrays, config: ModelConfig, ids: TextIds) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Compute the loss of each character of a text but the first, read in one stream by a copy of the model that adapts::

        s = s + g²
        p = p + λ (p₀ - p) - η g / (sqrt(s / k) + ε)          after segment k

    Yields:
        the positions of the predicted characters and the loss of each in nats, both (n,).
    """
    trained, params = params, {name: p.copy() for name, p in params.items()}
    squares = {name: np.zeros_like(p) for name, p in params.items()}
    state, work = model.State.zero(config, 1), model.Workspace.empty(config, SEGMENT, 1)
    for k, start in enumerate(range(0, len(ids) - 1, SEGMENT), start=1):
        window = np.asarray(ids[start : start + SEGMENT + 1]).astype(np.intp)
        inputs, targets = window[:-1, None], window[1:, None]
        if len(inputs) < SEGMENT:
            work = model.Workspace.empty(config, len(inputs), 1)
        logits, state = model.forward(params, config, inputs, state, work)
        yield start + 1 + np.arange(len(inputs)), loss.nll(logits, targets[:, 0])
        _, d_logits = loss.softmax_cross_entropy(logits, targets[:, 0])
        for name, g in model.backward(params, config, d_logits, inputs, work).items():
            p, s = params[name], squares[name]
            s += g * g
            p += DECAY * (trained[name] - p)
            p -= RATE * g / (np.sqrt(s / k) + EPSILON)
