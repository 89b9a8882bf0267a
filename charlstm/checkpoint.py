"""Checkpoints: one self-contained .npz file per run, written atomically and validated on load.

Every member is a plain array. ``meta`` is JSON (as bytes), ``vocabulary`` the code points and ``param/NAME`` the
weights. A run that can be resumed also has ``slot/SLOT/NAME``, ``good/NAME``, ``state/h`` and ``state/c``. Nothing is
pickled or compressed, and nothing comes from a clock: the same state gives the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import types
import typing
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from charlstm.batches import Cursor
from charlstm.corpus import TextInfo
from charlstm.errors import CheckpointError, SaveError, UsageError
from charlstm.guard import GuardRecord
from charlstm.nn import model, optim
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Array, Arrays
from charlstm.sampling import Writer
from charlstm.settings import TrainConfig
from charlstm.state import Plan, Point, Tally, TrainState
from charlstm.vocabulary import Vocabulary

FORMAT = 1
MAX_META_BYTES = 64 << 20
KINDS = "fui"
"""NumPy's kind codes of the dtypes that a member may have: floats and integers."""

NAME = re.compile(r"\w+(/\w[\w.]*)*", re.ASCII)
"""Pattern of valid member names, which excludes absolute paths and ".."."""

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint, whether it can be resumed or only sampled from."""

    path: Path
    bytes: int
    resumable: bool
    config: TrainConfig
    text: TextInfo
    plan: Plan
    step: int
    history: list[Point]
    best_step: int | None
    best_val_nats: float | None
    writer: Writer


@dataclass(frozen=True)
class Glance:
    """Metadata of a checkpoint, read without its arrays."""

    path: Path
    bytes: int
    resumable: bool
    shape: ModelConfig
    plan: Plan
    step: int
    best_val_nats: float | None

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return model.parameter_count(self.shape)


# -- save -------------------------------------------------------------------------------------------------------------


def save_run(path: Path, state: TrainState) -> None:
    """Save everything that `resume` needs; raises SaveError if the file can't be written."""
    arrays: Arrays = {f"slot/{name}": slot for name, slot in state.slots.items()}
    arrays |= {f"good/{name}": p for name, p in state.good.items()}
    arrays |= {"state/h": state.carried.h, "state/c": state.carried.c}
    run = {
        "cursor": vars(state.cursor),
        "batch_rng": state.batch_rng.bit_generator.state,
        "dropout_rng": state.dropout_rng.bit_generator.state,
        "tally": vars(state.tally),
        "guard": vars(state.guard),
    }
    _save(path, state, run, arrays)


def save_model(path: Path, state: TrainState, params: Arrays | None = None) -> None:
    """Save only what `sample` needs: the current parameters, or `params`, without optimizer and training state."""
    _save(path, state, None, {}, params)


def _save(
    path: Path, state: TrainState, run: dict[str, Any] | None, arrays: Arrays, params: Arrays | None = None
) -> None:
    meta = {
        "format": FORMAT,
        "model": vars(state.shape),
        "config": vars(state.config),
        "text": vars(state.text),
        "plan": vars(state.plan),
        "step": state.step,
        "history": [vars(point) for point in state.history],
        "best_step": state.best_step,
        "best_val_nats": state.best_val_nats,
        "arithmetic": state.arithmetic,
        "run": run,
    }
    members: dict[str, np.ndarray] = {
        "meta": np.frombuffer(json.dumps(meta, sort_keys=True, allow_nan=False).encode(), np.uint8),
        "vocabulary": np.array([ord(c) for c in state.vocabulary.characters], np.uint32),
    }
    members |= {f"param/{name}": p for name, p in (params or state.params).items()} | arrays
    for name, array in members.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SaveError(f"{path} was not written: {name} contains a non-finite number")
    write_atomically(path, lambda file: _write_npz(file, members))


def _write_npz(file: BinaryIO, members: dict[str, np.ndarray]) -> None:
    """Write an archive like `numpy.savez`, which before NumPy 2.0 leaves the archive open if writing fails."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_atomically(path: Path, write: typing.Callable[[BinaryIO], None], option: str = "--checkpoints") -> None:
    """Write a file atomically: readers see either the old file or the new one, even after a power cut.

    Args:
        path: the file; replaced if it exists.
        write: writes the contents.
        option: the command-line option that sets another location, for the error message.

    Raises:
        SaveError: says why; unless only the sync after the rename failed, the old file is unchanged.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(beside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise SaveError(
            f"{path} can't be written: {error.strerror or error}; make room or choose another location with {option}"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut; not possible on Windows."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- load -------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Read and validate a checkpoint, without the arrays that only `resume` needs.

    Raises:
        CheckpointError: the file can't be read or is not a valid checkpoint.
    """
    with _complaining(path):
        meta, members = _read(path, wanted=("meta", "vocabulary", "param/"))
        return _checkpoint(path, meta, members)


def glance(path: Path) -> Glance:
    """Read the metadata of a checkpoint, which takes the same time whatever its size.

    Raises:
        CheckpointError: the file can't be read or its metadata is not valid.
    """
    with _complaining(path):
        meta, _ = _read(path, wanted=("meta",))
        return Glance(
            path=path,
            bytes=path.stat().st_size,
            resumable=meta["run"] is not None,
            shape=_sizes(meta)[1],
            plan=_build(Plan, meta["plan"], "plan"),
            step=_typed(int, meta["step"], "step"),
            best_val_nats=_typed(float | None, meta["best_val_nats"], "best_val_nats"),
        )


def load_run(path: Path) -> TrainState:
    """Read and validate a run in order to continue it.

    Raises:
        CheckpointError: the file can't be read, is not a valid checkpoint, or contains only a model.
    """
    with _complaining(path):
        meta, members = _read(path)
        base, run = _checkpoint(path, meta, members), meta["run"]
        if run is None:
            raise ValueError("it contains a model but no training state: resume its NAME.npz, not NAME.best.npz")
        shape = base.writer.config
        shapes = model.shapes(shape)
        slots = optim.slot_names(base.config.optimizer, shapes, model.hidden_matrices(shape))
        carried = (shape.layers, base.config.batch, shape.hidden)
        return TrainState(
            shape=shape,
            config=base.config,
            vocabulary=base.writer.vocabulary,
            text=base.text,
            params=base.writer.params,
            slots=_take(members, "slot/", {slot: shapes[name] for slot, name in slots.items()}),
            good=_take(members, "good/", shapes),
            carried=model.State(**_take(members, "state/", {"h": carried, "c": carried})),
            cursor=_build(Cursor, run["cursor"], "cursor"),
            batch_rng=_generator(run["batch_rng"]),
            dropout_rng=_generator(run["dropout_rng"]),
            plan=base.plan,
            step=base.step,
            tally=_build(Tally, run["tally"], "tally"),
            guard=_build(GuardRecord, run["guard"], "guard"),
            history=base.history,
            best_step=base.best_step,
            best_val_nats=base.best_val_nats,
            arithmetic=_typed(str, meta.get("arithmetic", ""), "arithmetic"),
        )


@contextlib.contextmanager
def _complaining(path: Path) -> Iterator[None]:
    """Turn any exception that a bad file causes into a CheckpointError of one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is not a checkpoint, or is damaged: {_one_line(error)}") from error
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: {error} is missing") from error
    except (
        ValueError,
        TypeError,
        RuntimeError,
        NotImplementedError,
        EOFError,
        OverflowError,
        RecursionError,
        MemoryError,
        UsageError,
    ) as error:
        raise CheckpointError(f"{path} can't be used: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read(path: Path, wanted: tuple[str, ...] = ("",)) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the metadata of a file, and those of its arrays whose names start with one of `wanted`."""
    members: dict[str, Array] = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
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
    raw = members["meta"]
    if raw.dtype != np.uint8 or raw.ndim != 1 or raw.size > MAX_META_BYTES:
        raise ValueError("its metadata is not JSON")
    meta = json.loads(raw.tobytes())
    if not isinstance(meta, dict):
        raise ValueError("its metadata is not a JSON object")
    if meta.get("format") != FORMAT:
        raise ValueError(f"its format is {meta.get('format')!r} but this version reads only {FORMAT}: upgrade charlstm")
    return meta, members


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


def _checkpoint(path: Path, meta: dict[str, Any], members: dict[str, Array]) -> Checkpoint:
    """Build everything but the training state, and check that its members agree."""
    config, shape = _sizes(meta)
    points = members["vocabulary"]
    if points.dtype != np.uint32 or points.shape != (shape.vocabulary,):
        raise ValueError(f"its vocabulary has shape {points.shape} but the model has {shape.vocabulary} characters")
    surrogate = (points >= 0xD800) & (points <= 0xDFFF)
    if (np.diff(points.astype(np.int64)) <= 0).any() or points[-1] > 0x10FFFF or surrogate.any():
        raise ValueError("its vocabulary is not an ordered set of characters")
    return Checkpoint(
        path=path,
        bytes=path.stat().st_size,
        resumable=meta["run"] is not None,
        config=config,
        text=_build(TextInfo, meta["text"], "text"),
        plan=_build(Plan, meta["plan"], "plan"),
        step=_typed(int, meta["step"], "step"),
        history=[_build(Point, row, "history") for row in _typed(list[dict[str, Any]], meta["history"], "history")],
        best_step=_typed(int | None, meta["best_step"], "best_step"),
        best_val_nats=_typed(float | None, meta["best_val_nats"], "best_val_nats"),
        writer=Writer(shape, _take(members, "param/", model.shapes(shape)), Vocabulary("".join(map(chr, points)))),
    )


def _sizes(meta: dict[str, Any]) -> tuple[TrainConfig, ModelConfig]:
    """Return the settings and the model's sizes, checked for their limits and against each other."""
    config = _build(TrainConfig, meta["config"], "config")
    shape = _build(ModelConfig, meta["model"], "model")
    if min(shape.vocabulary, shape.hidden, shape.layers, config.batch, config.seq) < 1 or not 0 <= shape.dropout < 1:
        raise ValueError("its model has a size below 1 or an invalid dropout")
    if (shape.hidden, shape.layers) != (config.hidden, config.layers):  # `config` checked its own limits
        raise ValueError("its model sizes differ from its settings")
    return config, shape


def _take(members: dict[str, Array], prefix: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Return the float32 arrays under `prefix`, whose names and shapes must be exactly those of `shapes`."""
    found = {name.removeprefix(prefix): array for name, array in members.items() if name.startswith(prefix)}
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"{prefix}{name} is missing")
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise ValueError(f"{prefix}{name} is {found[name].dtype} {found[name].shape} but must be float32 {shape}")
    if extra := found.keys() - shapes.keys():
        raise ValueError(f"{prefix}{min(extra)[:80]} does not belong to the model")
    return {name: found[name] for name in shapes}


def _generator(state: Any) -> np.random.Generator:
    bits = np.random.PCG64()
    bits.state = _typed(dict[str, Any], state, "random state")
    return np.random.Generator(bits)


def _build(cls: type[T], data: Any, what: str) -> T:
    """Build a dataclass from a JSON object, whose keys and types must match the fields exactly."""
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(data, dict) or set(data) != set(fields):
        raise ValueError(f"its {what} must have exactly the fields {', '.join(fields)}")
    return cls(**{name: _typed(hints[name], data[name], f"{what}.{name}") for name in fields})


def _typed(hint: Any, value: Any, what: str) -> Any:
    """Return a JSON value if it has the type `hint`; an int is accepted for a float, a list for a tuple."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        hint, origin = str, None
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        return _typed(next(o for o in options if o is not type(None)), value, what)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_typed(options[0], item, what) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    plain = origin or hint
    if plain is not float and isinstance(value, plain) and (plain is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"its {what} is {value!r:.80}, not {getattr(hint, '__name__', hint)}")
