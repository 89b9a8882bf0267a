"""One self-contained .npz a run: saved so that no half of it can ever be seen, believed only after it was checked.

Every member is a plain array. ``meta`` is JSON (as bytes), ``vocabulary`` the code points, then ``param/NAME``; a run that can be
resumed has ``slot/SLOT/NAME``, ``good/NAME``, ``state/h`` and ``state/c`` as well. Nothing is pickled or compressed, and nothing in it comes
from a clock: the same state gives the same bytes.
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
"""NumPy's letters for the dtypes that a member may have: floats and integers."""

NAME = re.compile(r"\w+(/\w[\w.]*)*", re.ASCII)
"""What a member may be called: no path that leads anywhere."""

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """What any checkpoint holds, whether it can be resumed or only sampled from."""

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
    """What a checkpoint says of itself; its arrays were not looked at."""

    path: Path
    bytes: int
    resumable: bool
    shape: ModelConfig
    plan: Plan
    step: int
    best_val_nats: float | None

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return model.parameter_count(self.shape)


# -- save -------------------------------------------------------------------------------------------------------------


def save_run(path: Path, state: TrainState) -> None:
    """Save everything that `resume` needs."""
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
    """Save what `sample` needs: the parameters as they are now, or others, without the means to go on training."""
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
            raise SaveError(f"{path} was not written: {name} holds a number that is not finite")
    write_atomically(path, lambda file: _write_npz(file, members))


def _write_npz(file: BinaryIO, members: dict[str, np.ndarray]) -> None:
    """What `numpy.savez` writes, but for a NumPy before 2.0, which leaves the archive open where writing fails, and complains of it later."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_atomically(path: Path, write: typing.Callable[[BinaryIO], None], option: str = "--checkpoints") -> None:
    """Write a file so that a reader, or a power cut, sees the old one or the new one and nothing between.

    Args:
        path: the file; what is there is replaced.
        write: writes the content.
        option: the one that names another place.

    Raises:
        SaveError: says why; the old file is then as it was.
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
            f"{path} can't be written: {error.strerror or error}; free it or name another place with {option}"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; some systems can't open folders, and do without."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- load -------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Read and verify a checkpoint, of which only the model's own arrays are read.

    Raises:
        CheckpointError: one sentence on what is wrong with the file.
    """
    with _complaining(path):
        meta, members = _read(path, wanted=("meta", "vocabulary", "param/"))
        return _checkpoint(path, meta, members)


def glance(path: Path) -> Glance:
    """Read what a checkpoint says of itself, which takes the same time whatever its size.

    Raises:
        CheckpointError: one sentence on what is wrong with the file.
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
    """Read and verify a run, to go on with it.

    Raises:
        CheckpointError: one sentence on what is wrong with the file; also where it holds a model only.
    """
    with _complaining(path):
        meta, members = _read(path)
        base, run = _checkpoint(path, meta, members), meta["run"]
        if run is None:
            raise ValueError(
                "it holds a model to sample from, without what 'resume' needs: resume its NAME.npz, not NAME.best.npz"
            )
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
    """Turn whatever a bad file leads to into one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is no checkpoint, or is damaged: {_one_line(error)}") from error
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: {error} is missing in it") from error
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
    """The JSON of a file and those of its arrays whose names begin with one of `wanted`."""
    members: dict[str, Array] = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        size = os.fstat(file.fileno()).st_size  # of this file: the name may be another one's by now
        listed = archive.infolist()
        names = [entry.filename for entry in listed]
        if len(set(names)) < len(names):
            raise ValueError("two of its members have the same name")
        if sum(entry.file_size for entry in listed) > size:
            raise ValueError("its members claim to be larger than the file")
        for entry in listed:
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError(f"{name} is compressed, which charlstm never does")
            if name == entry.filename:
                raise ValueError(f"{name[:80]!r} in it is not an array")
            if not NAME.fullmatch(name):
                raise ValueError(f"{name[:80]!r} in it is no name of an array")
            if name.startswith(wanted):
                members[name] = _array(name, archive.read(entry))
    raw = members["meta"]
    if raw.dtype != np.uint8 or raw.ndim != 1 or raw.size > MAX_META_BYTES:
        raise ValueError("its meta is not JSON bytes")
    meta = json.loads(raw.tobytes())
    if not isinstance(meta, dict):
        raise ValueError("its meta is not a JSON object")
    if meta.get("format") != FORMAT:
        raise ValueError(f"its format is {meta.get('format')!r} and this version reads {FORMAT}: get a newer charlstm")
    return meta, members


def _array(name: str, data: bytes) -> Array:
    """The array in the bytes of a .npy file; its size is checked before it is believed."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read_header is None:
        raise ValueError(f"{name} has the unknown array version {version}")
    try:
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # NumPy hands a strange one to Python's own parser, which has many ways to object
        raise ValueError(f"the header of {name} can't be read") from error
    if dtype.kind not in KINDS or dtype.hasobject:
        raise ValueError(f"{name} is of type {dtype}")
    offset = file.tell()
    if math.prod(shape) * dtype.itemsize != len(data) - offset:
        raise ValueError(
            f"{name} has {len(data) - offset} bytes where its shape {shape} needs {math.prod(shape) * dtype.itemsize}"
        )
    flat = np.frombuffer(data, dtype, offset=offset)
    array = flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), order="C")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return array


def _checkpoint(path: Path, meta: dict[str, Any], members: dict[str, Array]) -> Checkpoint:
    """Everything but the run's own arrays, checked against each other."""
    config, shape = _sizes(meta)
    points = members["vocabulary"]
    if points.dtype != np.uint32 or points.shape != (shape.vocabulary,):
        raise ValueError(f"its vocabulary has shape {points.shape} where the model has {shape.vocabulary} characters")
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
    """Settings and sizes of the model, within their limits and in agreement."""
    config = _build(TrainConfig, meta["config"], "config")
    shape = _build(ModelConfig, meta["model"], "model")
    if min(shape.vocabulary, shape.hidden, shape.layers, config.batch, config.seq) < 1 or not 0 <= shape.dropout < 1:
        raise ValueError("its model has a size below 1 or an impossible dropout")
    if (shape.hidden, shape.layers) != (config.hidden, config.layers):  # whose limits were checked
        raise ValueError("the sizes of its model are not those of its settings")
    return config, shape


def _take(members: dict[str, Array], prefix: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """The float32 arrays of one kind, exactly those that there must be and of the shapes they must have."""
    found = {name.removeprefix(prefix): array for name, array in members.items() if name.startswith(prefix)}
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"{prefix}{name} is missing")
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise ValueError(
                f"{prefix}{name} is {found[name].dtype} {found[name].shape} where float32 {shape} is needed"
            )
    if extra := found.keys() - shapes.keys():
        raise ValueError(f"{prefix}{min(extra)[:80]} does not belong to the model")
    return {name: found[name] for name in shapes}


def _generator(state: Any) -> np.random.Generator:
    bits = np.random.PCG64()
    bits.state = _typed(dict[str, Any], state, "random state")
    return np.random.Generator(bits)


def _build(cls: type[T], data: Any, what: str) -> T:
    """A dataclass from JSON whose names and types must be exactly its own."""
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(data, dict) or set(data) != set(fields):
        raise ValueError(f"its {what} does not have exactly the fields {', '.join(fields)}")
    return cls(**{name: _typed(hints[name], data[name], f"{what}.{name}") for name in fields})


def _typed(hint: Any, value: Any, what: str) -> Any:
    """A JSON value as the type it must have; an int will do for a float, a list for a tuple."""
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
