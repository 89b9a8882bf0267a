"""Whether an MPI launcher started this process, and what the ranks of its job share; needs neither NumPy nor mpi4py.

The launchers tell their processes in the environment how many they are. Slurm also sets its variables in the one
process that runs a batch script, so those of the job step count: they exist only under ``srun``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)
"""Environment variables with the number of processes and the number of this one."""

ranks = 1
"""Number of ranks that train the run together; more than 1 only after this process has joined them."""
hosts = 1
"""Number of hosts that they run on."""
arithmetic = ""
"""Fingerprint of the arithmetic of several hosts together; empty on one host."""
abort: Callable[[int], None] | None = None
"""Ends all ranks with a status; set if this rank fails while the others wait for it."""


def started_as(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Return the number of this process and of all processes that the launcher started: (0, 1) without a launcher."""
    environment = os.environ if environment is None else environment
    for size, rank in LAUNCHERS:
        numbers = [environment.get(name, "") for name in (rank, size)]
        if all(number.isdecimal() for number in numbers):
            return int(numbers[0]), int(numbers[1])
    return 0, 1
