"""The array types in the signatures of the numerical core."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
"""An array of floats (float32 or float64) unless a docstring says otherwise."""

Ids = np.ndarray[tuple[Any, ...], np.dtype[np.integer[Any]]]
"""An array of character ids, 0 … V-1."""

Arrays = dict[str, Array]
"""Named arrays in one flat dict: parameters, gradients, optimizer slots. Updating, clipping and saving are loops over its names."""
