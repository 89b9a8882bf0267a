"""Memory that the ranks of a host share: a file that all of them map, and that has no name any more."""

from __future__ import annotations

import mmap
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from charlstm.errors import CharlstmError
from charlstm.nn.types import Array
from charlstm.training.ranks import World

SHARED_FOLDER = Path("/dev/shm")
"""Where Linux keeps files that are memory; if it is small, as in containers, the folder for temporary files has them."""
ALIGNMENT = 64
"""Bytes; arrays of different ranks share no cache line."""


def shared_block(world: World, size: int) -> mmap.mmap:
    """Return memory of this many bytes that the ranks of this host share; it ends with the last of them.

    Raises:
        CharlstmError: there is not enough.
    """
    path = np.zeros(256, np.uint8)
    try:
        if world.host.rank == 0:
            roomy = SHARED_FOLDER.is_dir() and shutil.disk_usage(SHARED_FOLDER).free > 2 * size
            handle, name = tempfile.mkstemp(prefix="charlstm-", dir=SHARED_FOLDER if roomy else None)
            path[: len(os.fsencode(name))] = np.frombuffer(os.fsencode(name), np.uint8)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, max(1, size))  # so that writing can't fail later
            else:
                os.ftruncate(handle, max(1, size))
        world.wait(world.host.Ibcast(path))
        if world.host.rank:
            handle = os.open(bytes(path).rstrip(b"\0"), os.O_RDWR)
        block = mmap.mmap(handle, max(1, size))
        os.close(handle)
        world.barrier()
    except OSError as error:
        raise CharlstmError(
            f"{size / 1e6:.0f} MB of memory can't be shared on {socket.gethostname()} ({error.strerror}): "
            f"free some in {SHARED_FOLDER} or {tempfile.gettempdir()}"
        ) from error
    finally:
        if world.host.rank == 0 and path[0]:
            Path(os.fsdecode(bytes(path).rstrip(b"\0"))).unlink()
    return block


class Arena:
    """Hands out aligned arrays from one block of memory; without one, it only counts the bytes."""

    def __init__(self, block: Any = None) -> None:
        self.block, self.used = block, 0

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array, whose contents are undefined."""
        count, size = int(np.prod(shape)), np.dtype(dtype).itemsize
        start = self.used
        self.used += -(-max(1, count * size) // ALIGNMENT) * ALIGNMENT
        if self.block is None or not count:
            return np.broadcast_to(np.zeros((), dtype), shape)
        return np.frombuffer(self.block, dtype, count, start).reshape(shape)
