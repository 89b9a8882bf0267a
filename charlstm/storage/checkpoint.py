"""Checkpoints: one self-contained .npz file per run, written atomically and validated on load.

Every member is a plain array. ``meta`` is JSON (as bytes), ``vocabulary`` the code points and ``param/NAME`` the
weights. A run that can be resumed also has ``slot/SLOT/NAME``, ``good/NAME``, ``state/h`` and ``state/c``. Nothing is
pickled or compressed, and nothing comes from a clock: the same state gives the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from charlstm.errors import CheckpointError, SaveError, UsageError
from charlstm.inference.sampling import CharModel
from charlstm.nn import model, optim
from charlstm.nn.config import ModelConfig
from charlstm.nn.types import Array, Arrays
from charlstm.settings import TrainConfig
from charlstm.storage import atomic
from charlstm.storage.schema import build, config_json, generator, line_chars, sizes, text_info, text_json, typed
from charlstm.text.batches import Cursor
from charlstm.text.corpus import TextInfo
from charlstm.text.vocabulary import Vocabulary
from charlstm.training.guard import GuardRecord
from charlstm.training.schedule import Schedule
from charlstm.training.state import HistoryRow, MetricSums, PretrainedInfo, TrainState

FORMAT = 1
MAX_META_BYTES = 64 << 20
KINDS = "fui"
"""NumPy's kind codes of the dtypes that a member may have: floats and integers."""

NAME = re.compile(r"\w+(/\w[\w.]*)*", re.ASCII)
"""Pattern of valid member names, which excludes absolute paths and ".."."""


@dataclass(frozen=True)
class Checkpoint:
    """Contents of a checkpoint, whether it can be resumed or only sampled from."""

    path: Path
    bytes: int
    resumable: bool
    config: TrainConfig
    text: TextInfo
    schedule: Schedule
    step: int
    history: list[HistoryRow]
    best_step: int | None
    best_val_nats: float | None
    char_model: CharModel
    pretrained: PretrainedInfo | None


@dataclass(frozen=True)
class CheckpointHeader:
    """Metadata of a checkpoint, read without its arrays."""

    path: Path
    bytes: int
    resumable: bool
    shape: ModelConfig
    schedule: Schedule
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
    arrays |= {f"good/{name}": p for name, p in state.snapshot.items()}
    arrays |= {"state/h": state.recurrent_state.h, "state/c": state.recurrent_state.c}
    run = {
        "cursor": vars(state.cursor),
        "batch_rng": state.batch_rng.bit_generator.state,
        "dropout_rng": state.dropout_rng.bit_generator.state,
        "tally": vars(state.sums),
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
        "config": config_json(state.config),
        "text": text_json(state.text),
        "plan": vars(state.schedule),
        "step": state.step,
        "history": [vars(row) for row in state.history],
        "best_step": state.best_step,
        "best_val_nats": state.best_val_nats,
        "arithmetic": state.arithmetic,
        "line_chars": state.line_chars,
        "pretrained": None if state.pretrained is None else vars(state.pretrained),
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
    atomic.write_atomically(path, lambda file: _write_npz(file, members))


def _write_npz(file: BinaryIO, members: dict[str, np.ndarray]) -> None:
    """Write an archive like `numpy.savez`, which before NumPy 2.0 leaves the archive open if writing fails."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


# -- load -------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Read and validate a checkpoint, without the arrays that only `resume` needs.

    Raises:
        CheckpointError: the file can't be read or is not a valid checkpoint.
    """
    with _checkpoint_errors(path):
        meta, members = _read(path, wanted=("meta", "vocabulary", "param/"))
        return _checkpoint(path, meta, members)


def read_header(path: Path) -> CheckpointHeader:
    """Read the metadata of a checkpoint, which takes the same time whatever its size.

    Raises:
        CheckpointError: the file can't be read or its metadata is not valid.
    """
    with _checkpoint_errors(path):
        meta, _ = _read(path, wanted=("meta",))
        return CheckpointHeader(
            path=path,
            bytes=path.stat().st_size,
            resumable=meta["run"] is not None,
            shape=sizes(meta)[1],
            schedule=build(Schedule, meta["plan"], "plan"),
            step=typed(int, meta["step"], "step"),
            best_val_nats=typed(float | None, meta["best_val_nats"], "best_val_nats"),
        )


def load_run(path: Path) -> TrainState:
    """Read and validate a run in order to continue it.

    Raises:
        CheckpointError: the file can't be read, is not a valid checkpoint, or contains only a model.
    """
    with _checkpoint_errors(path):
        meta, members = _read(path)
        base, run = _checkpoint(path, meta, members), meta["run"]
        if run is None:
            raise ValueError("it contains a model but no training state: resume its NAME.npz, not NAME.best.npz")
        shape = base.char_model.config
        shapes = model.shapes(shape)
        slots = optim.slot_names(base.config.optimizer, shapes, model.hidden_matrices(shape))
        recurrent_state = (shape.layers, base.config.batch, shape.hidden)
        return TrainState(
            shape=shape,
            config=base.config,
            vocabulary=base.char_model.vocabulary,
            text=base.text,
            params=base.char_model.params,
            slots=_take(members, "slot/", {slot: shapes[name] for slot, name in slots.items()}),
            snapshot=_take(members, "good/", shapes),
            recurrent_state=model.State(**_take(members, "state/", {"h": recurrent_state, "c": recurrent_state})),
            cursor=build(Cursor, run["cursor"], "cursor"),
            batch_rng=generator(run["batch_rng"]),
            dropout_rng=generator(run["dropout_rng"]),
            schedule=base.schedule,
            step=base.step,
            sums=build(MetricSums, run["tally"], "tally"),
            guard=build(GuardRecord, run["guard"], "guard"),
            history=base.history,
            best_step=base.best_step,
            best_val_nats=base.best_val_nats,
            arithmetic=typed(str, meta.get("arithmetic", ""), "arithmetic"),
            line_chars=base.char_model.line_chars,
            pretrained=base.pretrained,
        )


@contextlib.contextmanager
def _checkpoint_errors(path: Path) -> Iterator[None]:
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
    config, shape = sizes(meta)
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
        text=text_info(meta["text"]),
        schedule=build(Schedule, meta["plan"], "plan"),
        step=typed(int, meta["step"], "step"),
        history=[build(HistoryRow, row, "history") for row in typed(list[dict[str, Any]], meta["history"], "history")],
        best_step=typed(int | None, meta["best_step"], "best_step"),
        best_val_nats=typed(float | None, meta["best_val_nats"], "best_val_nats"),
        char_model=CharModel(
            shape,
            _take(members, "param/", model.shapes(shape)),
            Vocabulary("".join(map(chr, points))),
            line_chars(meta.get("line_chars", [])),  # older files have none
        ),
        pretrained=None if meta.get("pretrained") is None else build(PretrainedInfo, meta["pretrained"], "pretrained"),
    )


def _take(members: dict[str, Array], prefix: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Return the float32 arrays under `prefix`, whose names and shapes must be exactly those of `shapes`."""
    found = {name.removeprefix(prefix): array for name, array in members.items() if name.startswith(prefix)}
    for name, shape in shapes.items():
        if name not in found:
            raise ValueError(f"{prefix}{name} is missing")
        if prefix == "param/" and found[name].dtype == np.float16:  # a model to sample from, in half the space
            found[name] = found[name].astype(np.float32)
        if found[name].shape != shape or found[name].dtype != np.float32:
            raise ValueError(f"{prefix}{name} is {found[name].dtype} {found[name].shape} but must be float32 {shape}")
    if extra := found.keys() - shapes.keys():
        raise ValueError(f"{prefix}{min(extra)[:80]} does not belong to the model")
    return {name: found[name] for name in shapes}
