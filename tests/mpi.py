"""Jobs of several ranks: how tests, experiments and benchmarks start them, and find their processes.

mpirun -n 4 python -m tests.mpi HOSTS train verses.txt    # the program, whose ranks believe to be on that many hosts
"""

from __future__ import annotations

import functools
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "PRTE_MCA_hwloc_default_binding_policy": "none",  # other processes may use the core that a rank would be bound to
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}
"""What Open MPI needs to run as root, with more ranks than cores, and on a busy machine."""


@functools.cache
def mpirun() -> str | None:
    """The launcher beside this Python or on the path; None if there is none, or no mpi4py."""
    found = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    return found if importlib.util.find_spec("mpi4py") else None


def start(ranks: int, *words: object, hosts: int = 1, module: str = "charlstm", **more: Any) -> subprocess.Popen[bytes]:
    """Start a job of the program, or of another module."""
    environment = {**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    program = [module] if hosts == 1 else ["tests.mpi", hosts]
    command = [mpirun(), "-n", ranks, sys.executable, "-m", *program, *words]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(word) for word in command], env=environment, **{**pipes, **more})  # type: ignore[call-overload,no-any-return]


def pids(job: subprocess.Popen[bytes], ranks: int, seconds: float = 30) -> list[int]:
    """The processes of a job of Open MPI, by rank, as soon as all are there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = {}
        for child in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {
                int(v.partition(b"=")[2]): int(child) for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")
            }
        if len(found) == ranks:
            return [found[rank] for rank in range(ranks)]
        time.sleep(0.02)
    raise AssertionError("the ranks did not start")


def main() -> None:
    """Be a rank of a job on hosts that are not there."""
    from charlstm import blas

    blas.prepare()
    from charlstm.training import ranks

    hosts, meet = int(sys.argv.pop(1)), ranks.World._meet

    class Divided:
        """A communicator that splits into equal hosts."""

        def __init__(self, whole: Any) -> None:
            self.whole = whole

        def __getattr__(self, name: str) -> Any:
            return getattr(self.whole, name)

        def Split_type(self, kind: int, key: int) -> Any:  # noqa: N802
            return self.whole.Split(self.whole.rank * hosts // self.whole.size, key)

    def meet_divided(world: Any) -> None:
        world.comm = Divided(world.comm)
        meet(world)

    ranks.World._meet = meet_divided  # type: ignore[method-assign]
    runpy.run_module("charlstm", run_name="__main__")


if __name__ == "__main__":
    main()
