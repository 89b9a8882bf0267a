"""The two array types that every signature in the core uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of floats (float32 or float64) unless a docstring says otherwise."""

Ids = NDArray[np.integer[Any]]
"""An array of character ids, 0 … V-1."""

Arrays = dict[str, Array]
"""Named arrays: parameters, gradients, optimizer slots. One flat dict, so that updating, clipping and saving are loops over names."""
