"""Configures NumPy's BLAS; must run before NumPy is imported, because BLAS reads its settings when it is loaded."""

from __future__ import annotations

import os
import sys

from charlstm import launcher

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def prepare() -> None:
    """Limit BLAS to one thread per product, because training gives each core its own shard: see `training.data_parallel`.

    Variables that the user has set win. The choice of kernels is left to BLAS: OpenBLAS detects AVX-512 by itself,
    unless OPENBLAS_CORETYPE is set.
    """
    if "numpy" not in sys.modules:
        for variable in THREADS:
            os.environ.setdefault(variable, "1")


def cores() -> int:
    """Return the number of cores that this process may use; if ranks work together, each is one."""
    if launcher.ranks > 1:
        return launcher.ranks
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
