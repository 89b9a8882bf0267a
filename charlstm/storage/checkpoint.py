"""Checkpoints: one self-contained .npz file per run, written atomically and validated on load.

Every member is a plain array. ``meta`` is JSON (as bytes), ``vocabulary`` the code points and ``param/NAME`` the
weights. A run that can be resumed also has ``average/NAME``, the weights to sample from, ``slot/SLOT/NAME``,
``good/NAME``, ``start/NAME`` if the average keeps a share of pretrained weights, ``state/h`` and ``state/c``. Nothing is
pickled or compressed, and nothing comes from a clock: the same state gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charlstm.errors import CheckpointError, SaveError, UsageError
from charlstm.inference.sampling import CharModel
from charlstm.nn import model
from charlstm.nn.config import ModelConfig, Range
from charlstm.nn.types import Array, Arrays
from charlstm.settings import TrainConfig
from charlstm.storage import archive, atomic, schema
from charlstm.text.identity import TextInfo
from charlstm.text.vocabulary import Vocabulary
from charlstm.training.schedule import Schedule

if TYPE_CHECKING:
    from charlstm.training.history import HistoryRow, PretrainedInfo
    from charlstm.training.state import TrainState

FORMAT = 1
MAX_META_BYTES = 32 << 20
MANY_VALUES, MIN_VALUE_BYTES = 100_000, 6
"""With more values than the first, the JSON of a file must have a mean length of at least the second: each takes far more
memory than a character."""


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
    rows: list[Any]  # of the history, as they are in the file
    best_step: int | None
    best_val_nats: float | None
    char_model: CharModel
    pretrained: PretrainedInfo | None

    @cached_property
    def history(self) -> list[HistoryRow]:
        """One row of metrics per evaluation, read when it is first asked for.

        Raises:
            CheckpointError: it is not valid.
        """
        with _checkpoint_errors(self.path):
            return schema.history(self.rows, self.step)

    @property
    def header(self) -> CheckpointHeader:
        """The metadata that `read_header` would return."""
        shape = self.char_model.config
        return CheckpointHeader(
            self.path, self.bytes, self.resumable, shape, self.schedule, self.step, self.best_val_nats
        )


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
    for kind, weights in (("average", state.averaged), ("good", state.snapshot), ("start", state.start)):
        arrays |= {f"{kind}/{name}": p for name, p in weights.items()}
    arrays |= {"state/h": state.recurrent_state.h, "state/c": state.recurrent_state.c}
    run = {
        "cursor": vars(state.cursor),
        "batch_rng": state.batch_rng.bit_generator.state,
        "dropout_rng": state.dropout_rng.bit_generator.state,
        "tally": vars(state.sums),
        "guard": vars(state.guard),
    }
    _save(path, state, run, arrays, state.params)


def save_model(path: Path, state: TrainState, params: Arrays | None = None) -> None:
    """Save only what `sample` needs: the averaged weights, or `params`, without optimizer and training state."""
    _save(path, state, None, {}, params or state.averaged)


def _save(path: Path, state: TrainState, run: dict[str, Any] | None, arrays: Arrays, params: Arrays) -> None:
    meta = {
        "format": FORMAT,
        "model": schema.shape_json(state.shape),
        "config": schema.config_json(state.config),
        "text": schema.text_json(state.text),
        "plan": vars(state.schedule),
        "step": state.step,
        "history": [vars(row) for row in state.history],
        "best_step": state.best_step,
        "best_val_nats": state.best_val_nats,
        "arithmetic": state.arithmetic,
        "line_chars": state.line_chars,
        "pretrained": None if state.pretrained is None else vars(state.pretrained),
        "run": run,
    } | ({"start_share": state.start_share} if state.start else {})
    text = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
    if len(text) > MAX_META_BYTES:
        raise SaveError(f"{path} can't hold the paths of {len(state.text.sources):,} texts: join them into fewer files")
    members: dict[str, np.ndarray] = {
        "meta": np.frombuffer(text, np.uint8),
        "vocabulary": np.array([ord(c) for c in state.vocabulary.characters], np.uint32),
    }
    members |= {f"param/{name}": p for name, p in params.items()} | arrays
    for name, array in members.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SaveError(f"{path} was not written: {name} contains a non-finite number")
    atomic.write_atomically(path, lambda file: archive.write(file, members))


# -- load -------------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Read and validate a checkpoint, without its history and the arrays that only `resume` needs.

    Raises:
        CheckpointError: the file can't be read or is not a valid checkpoint.
    """
    with _checkpoint_errors(path):
        return _checkpoint(path, *_read(path, wanted=("meta", "vocabulary", "param/", "average/")))


def read_header(path: Path) -> CheckpointHeader:
    """Read the metadata of a checkpoint, which takes the same time whatever its size.

    Raises:
        CheckpointError: the file can't be read or its metadata is not valid.
    """
    with _checkpoint_errors(path):
        meta, _, size = _read(path, wanted=("meta",))
        schedule, step, _, best_val_nats = schema.progress(meta)
        return CheckpointHeader(
            path, size, meta["run"] is not None, schema.sizes(meta)[1], schedule, step, best_val_nats
        )


def load_run(path: Path) -> TrainState:
    """Read and validate a run in order to continue it.

    Raises:
        CheckpointError: the file can't be read, is not a valid checkpoint, or contains only a model.
    """
    _, state = load_all(path)
    if state is None:
        raise CheckpointError(
            f"{path} can't be used: it contains a model but no training state: resume its NAME.npz, not NAME.best.npz"
        )
    return state


def load_all(path: Path) -> tuple[Checkpoint, TrainState | None]:
    """Read and validate everything in a checkpoint, once: its contents, and its training state if it has one.

    Raises:
        CheckpointError: the file can't be read or is not a valid checkpoint.
    """
    with _checkpoint_errors(path):
        meta, members, size = _read(path)
        base = _checkpoint(path, meta, members, size)
        return base, _state(base, meta, members) if base.resumable else None


def _state(base: Checkpoint, meta: dict[str, Any], members: dict[str, Array]) -> TrainState:
    """Build the training state, and check that its members agree with the rest."""
    from charlstm.nn import optim  # `sample` starts faster without them
    from charlstm.training.state import MOST_START_SHARE, TrainState

    run, config, shape = meta["run"], base.config, base.char_model.config
    cursor, sums, guard = schema.memory(run, config, base.text, base.step)
    shapes = model.shapes(shape)
    slots = optim.slot_names(config.optimizer, shapes, model.hidden_matrices(shape))
    recurrent_state = (shape.layers, config.batch, shape.hidden)
    return TrainState(
        shape=shape,
        config=config,
        vocabulary=base.char_model.vocabulary,
        text=base.text,
        params=_take(members, "param/", shapes),
        slots=_take(members, "slot/", {slot: shapes[name] for slot, name in slots.items()}),
        snapshot=_take(members, "good/", shapes),
        averaged=base.char_model.params,
        recurrent_state=model.State(**_take(members, "state/", {"h": recurrent_state, "c": recurrent_state})),
        cursor=cursor,
        batch_rng=schema.generator(run["batch_rng"]),
        dropout_rng=schema.generator(run["dropout_rng"]),
        schedule=base.schedule,
        step=base.step,
        sums=sums,
        guard=guard,
        history=base.history,
        best_step=base.best_step,
        best_val_nats=base.best_val_nats,
        arithmetic=schema.typed(str, meta.get("arithmetic", ""), "arithmetic"),
        line_chars=base.char_model.line_chars,
        pretrained=base.pretrained,
        start=_take(members, "start/", shapes if "start_share" in meta else {}),
        start_share=schema.typed(float, meta.get("start_share", 0.0), "start_share", Range(0, MOST_START_SHARE)),
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
    except (ValueError, TypeError, RuntimeError, EOFError, OverflowError, MemoryError, UsageError) as error:
        raise CheckpointError(f"{path} can't be used: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _read(path: Path, wanted: tuple[str, ...] = ("",)) -> tuple[dict[str, Any], dict[str, Array], int]:
    """Return the metadata of a file, those of its arrays whose names start with one of `wanted`, and its size in bytes."""
    members, size = archive.read(path, wanted)
    raw = members["meta"]
    if raw.dtype != np.uint8 or raw.ndim != 1 or raw.size > MAX_META_BYTES:
        raise ValueError("its metadata is not JSON")
    text = raw.tobytes()
    values = sum(map(text.count, (b",", b"[", b"{")))
    if values > MANY_VALUES and values * MIN_VALUE_BYTES > len(text):
        raise ValueError("its metadata is not that of a checkpoint")
    meta = json.loads(text)
    if not isinstance(meta, dict):
        raise ValueError("its metadata is not a JSON object")
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"its format is {meta.get('format')!r:.80} but this version reads only {FORMAT}: upgrade charlstm"
        )
    return meta, members, size


def _checkpoint(path: Path, meta: dict[str, Any], members: dict[str, Array], size: int) -> Checkpoint:
    """Build everything but the training state, and check that its members agree."""
    config, shape = schema.sizes(meta)
    schedule, step, best_step, best_val_nats = schema.progress(meta)
    pretrained = meta.get("pretrained")
    weights = "average/" if "average/out.b" in members else "param/"  # models and older runs have one kind
    return Checkpoint(
        path=path,
        bytes=size,
        resumable=meta["run"] is not None,
        config=config,
        text=schema.text_info(meta),
        schedule=schedule,
        step=step,
        rows=schema.typed(list[dict[str, Any]], meta["history"], "history"),
        best_step=best_step,
        best_val_nats=best_val_nats,
        char_model=CharModel(
            shape,
            _take(members, weights, model.shapes(shape)),
            Vocabulary(schema.characters(members["vocabulary"], shape)),
            schema.line_chars(meta.get("line_chars", [])),  # older files have none
        ),
        pretrained=None if pretrained is None else schema.pretrained_info(pretrained),
    )


def _take(members: dict[str, Array], prefix: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Return the float32 arrays under `prefix`, whose names and shapes must be exactly those of `shapes`."""
    arrays = {name.removeprefix(prefix): array for name, array in members.items() if name.startswith(prefix)}
    for name, shape in shapes.items():
        if name not in arrays:
            raise ValueError(f"{prefix}{name} is missing")
        if prefix == "param/" and arrays[name].dtype == np.float16:  # a model to sample from, in half the space
            arrays[name] = arrays[name].astype(np.float32)
        if arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise ValueError(f"{prefix}{name} is {arrays[name].dtype} {arrays[name].shape} but must be float32 {shape}")
    if extra := arrays.keys() - shapes.keys():
        raise ValueError(f"{prefix}{min(extra)[:80]} does not belong to the model")
    return {name: arrays[name] for name in shapes}
