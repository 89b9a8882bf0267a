"""Settles how NumPy's BLAS will run; must be called before NumPy is imported, because BLAS decides when it is loaded."""

from __future__ import annotations

import os
import sys

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def prepare() -> None:
    """One thread to a product, because training gives each core a part of its streams: see `charlstm.workers`.

    What the user's own environment says stands. Which kernels suit the processor is left to BLAS: OpenBLAS finds its AVX-512 ones
    by itself, unless OPENBLAS_CORETYPE in the environment says otherwise.
    """
    if "numpy" not in sys.modules:
        for variable in THREADS:
            os.environ.setdefault(variable, "1")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
