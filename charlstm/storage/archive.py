"""Arrays by name in an .npz file: an uncompressed ZIP archive without pickles, of which nothing is believed unchecked."""

from __future__ import annotations

import io
import math
import os
import re
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from charlstm.nn.types import Array

KINDS = "fui"
"""NumPy's kind codes of the dtypes that a member may have: floats and integers."""
NAME = re.compile(r"\w+(/\w[\w.]*)*", re.ASCII)
"""Pattern of valid member names, which excludes absolute paths and ".."."""


def write(file: BinaryIO, members: dict[str, np.ndarray]) -> None:
    """Write an archive like `numpy.savez`, which before NumPy 2.0 leaves the archive open if writing fails."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read(path: Path, wanted: tuple[str, ...] = ("",)) -> tuple[dict[str, Array], int]:
    """Return the members of a file whose names start with one of `wanted`, and the size of the file in bytes.

    Raises:
        OSError, ValueError, zipfile.BadZipFile and others: the file can't be read, or is not what `write` writes.
    """
    members: dict[str, Array] = {}
    with open(_open(path), "rb") as file, zipfile.ZipFile(file) as archive:
        size = os.fstat(file.fileno()).st_size  # of the open file: its name may refer to another by now
        listed = archive.infolist()
        names = [entry.filename for entry in listed]
        if len(set(names)) < len(names):
            raise ValueError("two members have the same name")
        if sum(entry.file_size for entry in listed) > size:
            raise ValueError("its members claim to be larger than the file")
        for entry in listed:
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{name} is compressed, which charlstm never does")
            if name == entry.filename:
                raise ValueError(f"its member {name[:80]!r} is not an array")
            if not NAME.fullmatch(name):
                raise ValueError(f"its member {name[:80]!r} has an invalid name")
            if name.startswith(wanted):
                members[name] = _array(name, archive.read(entry))
    return members, size


def _open(path: Path) -> int:
    """Open a regular file; a FIFO would wait for a writer."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is not a regular file")
    return handle


def _array(name: str, data: bytes) -> Array:
    """Return the array in the bytes of a .npy file, whose size and type are checked first."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read_header is None:
        raise ValueError(f"{name} has an unknown .npy version {version}")
    try:
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # NumPy evaluates the header as a Python literal, which can fail in many ways
        raise ValueError(f"the header of {name} can't be read") from error
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"{name} has the unsupported type {dtype}")
    offset = file.tell()
    if math.prod(shape) * dtype.itemsize != len(data) - offset:
        raise ValueError(
            f"{name} has {len(data) - offset} bytes, but its shape {shape} needs {math.prod(shape) * dtype.itemsize}"
        )
    flat = np.frombuffer(data, dtype, offset=offset)
    array = flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), order="C")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} contains a non-finite number")
    return array
