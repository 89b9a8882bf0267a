"""JSON of a checkpoint as dataclasses: exact fields, exact types, values within their limits, and consistent.

The limits of a field are declared with it, as in ``step: Annotated[int, COUNT]``, and apply to the items of a list.
What the fields must satisfy together is checked here, because only a file can break it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import sys
import types
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from charlstm.nn.config import COUNT, METRIC, ModelConfig, Range
from charlstm.nn.threads import shards_for
from charlstm.nn.types import Array
from charlstm.settings import TextOptions, TrainConfig
from charlstm.text.identity import TextInfo, train_chars
from charlstm.training.schedule import Schedule

if TYPE_CHECKING:
    from charlstm.text.batches import Cursor
    from charlstm.training.guard import GuardRecord
    from charlstm.training.history import HistoryRow, MetricSums, PretrainedInfo

T = TypeVar("T")
SINCE: dict[str, dict[str, Any]] = {
    "config": {"sync_every": 1},
    "model": {"residual": False, "multiplicative": False},
    "text": {"field": TextOptions.field, "separator": TextOptions.separator, "unescape": TextOptions.unescape, "held_out": None},
}  # fmt: skip
"""Fields that came after the first files, with what they mean there: a file has them only where they have other values."""

MAX_STRING = 4096
"""Maximum length of a string, which is that of a path on Linux."""
FINITE = Range(-sys.float_info.max, sys.float_info.max)
SHA256 = re.compile(r"[0-9a-f]{64}")


def sizes(meta: dict[str, Any]) -> tuple[TrainConfig, ModelConfig]:
    """Return the settings and the model's sizes, checked for their limits and against each other."""
    stored = meta["config"]
    if isinstance(stored, dict):
        stored = {"shards" if key == "parts" else key: value for key, value in stored.items()}  # the name in format 1
    config = build(TrainConfig, _with_later("config", stored), "config")
    shape = build(ModelConfig, _with_later("model", meta["model"]), "model")
    if (shape.hidden, shape.layers) != (config.hidden, config.layers):
        raise ValueError("its model sizes differ from its settings")
    if config.shards > shards_for(config.batch, config.shards):
        raise ValueError(f"its config.parts {config.shards} is more than a batch of {config.batch} can be split into")
    return config, shape


def config_json(config: TrainConfig) -> dict[str, Any]:
    """Return the settings under the names of format 1."""
    return {"parts" if key == "shards" else key: value for key, value in _without_later("config", config).items()}


def shape_json(shape: ModelConfig) -> dict[str, Any]:
    """Return the model's sizes."""
    return _without_later("model", shape)


def text_json(text: TextInfo) -> dict[str, Any]:
    """Return the identity of a text."""
    stored = _without_later("text", text)
    return stored if text.held_out is None else stored | {"held_out": text_json(text.held_out)}


def _without_later(what: str, value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that a file has: see `SINCE`."""
    later = SINCE[what]
    return {key: field for key, field in vars(value).items() if key not in later or field != later[key]}


def _with_later(what: str, stored: Any) -> Any:
    """Return what a file has, if it is an object, with all fields of the dataclass."""
    return SINCE[what] | stored if isinstance(stored, dict) else stored


def text_info(meta: dict[str, Any]) -> TextInfo:
    """Return the identity of the training text."""
    return _text_info(meta["text"], "text")


def _text_info(stored: Any, what: str) -> TextInfo:
    stored = _with_later("text", stored)
    if isinstance(stored, dict) and isinstance(stored["held_out"], dict):
        stored["held_out"] = _text_info(stored["held_out"], "text.held_out")
    text = build(TextInfo, stored, what)
    if text.held_out is not None and (text.held_out.held_out is not None or not text.held_out.sources):
        raise ValueError("its held-out text has no sources, or a held-out text")
    if text.separator != TextOptions.separator and not text.field:
        raise ValueError("its text has a separator but no field")
    if not text.sources or not SHA256.fullmatch(text.sha256):
        raise ValueError("its text has no sources or no SHA-256")
    return text


def progress(meta: dict[str, Any]) -> tuple[Schedule, int, int | None, float | None]:
    """Return the schedule, the step, and the step and loss of the best model."""
    step = typed(int, meta["step"], "step", COUNT)
    schedule = build(Schedule, meta["plan"], "plan")
    best_step = typed(int | None, meta["best_step"], "best_step", COUNT)
    best_nats = typed(float | None, meta["best_val_nats"], "best_val_nats", METRIC)
    if schedule.first > step or (
        schedule.last is not None and (schedule.last < schedule.first or not schedule.eval_every)
    ):
        raise ValueError(f"its plan does not fit step {step}")
    if (best_step is None) != (best_nats is None) or (best_step or 0) > step:
        raise ValueError("its best_step and best_val_nats do not fit each other or its step")
    return schedule, step, best_step, best_nats


def history(rows: Any, step: int) -> list[HistoryRow]:
    """Return the history up to a step, checked to be in order."""
    from charlstm.training.history import HistoryRow  # `sample` starts faster without it

    parsed = [build(HistoryRow, row, "history") for row in typed(list[dict[str, Any]], rows, "history")]
    steps = [row.step for row in parsed]
    if any(a >= b for a, b in itertools.pairwise([*steps, step + 1])):
        raise ValueError("its history is not in the order of its steps")
    return parsed


def pretrained_info(stored: Any) -> PretrainedInfo:
    """Return what a run started from."""
    from charlstm.training.history import PretrainedInfo

    return build(PretrainedInfo, stored, "pretrained")


def memory(run: Any, config: TrainConfig, text: TextInfo, step: int) -> tuple[Cursor, MetricSums, GuardRecord]:
    """Return the position in the text, the running sums and the guard's record of a run, checked against the rest of it."""
    from charlstm.text.batches import Cursor, reset_every  # `sample` starts faster without them
    from charlstm.training.guard import RECENT, GuardRecord
    from charlstm.training.history import MetricSums

    if not isinstance(run, dict):
        raise ValueError("its run is not a JSON object")
    cursor = build(Cursor, run["cursor"], "cursor")
    sums = build(MetricSums, run["tally"], "tally")
    guard = build(GuardRecord, run["guard"], "guard")
    targets, chars = train_chars(text.chars, config.val_fraction) - 1, config.batch * config.seq
    if chars > targets:
        raise ValueError(
            f"its batch {config.batch} and seq {config.seq} need more than a text of {text.chars} characters"
        )
    resets = reset_every(config.seq)
    if cursor.window >= targets // chars or cursor.offset > targets % chars or cursor.phase > resets:
        raise ValueError("its cursor is outside its text")
    if (
        sums.steps > step
        or guard.good_step > step
        or len(guard.recent) > RECENT
        or (cursor.window and not cursor.epoch)
    ):
        raise ValueError(f"its tally, guard or cursor does not fit step {step}")
    return cursor, sums, guard


def generator(state: Any) -> np.random.Generator:
    """Rebuild a random generator from its saved state."""
    outer = {"bit_generator": "PCG64", "state": None, "has_uint32": Range(0, 1), "uinteger": Range(0, 2**32 - 1)}
    inner = dict.fromkeys(("state", "inc"), Range(0, 2**128 - 1))
    for given, expected in ((state, outer), (state["state"] if isinstance(state, dict) else None, inner)):
        if not isinstance(given, dict) or given.keys() != expected.keys():
            raise ValueError("its random state is not that of a generator")
        for key, limit in expected.items():
            if isinstance(limit, Range):
                typed(int, given[key], f"random state's {key}", limit)
    bits = np.random.PCG64()
    bits.state = state
    return np.random.Generator(bits)


def characters(points: Array, shape: ModelConfig) -> str:
    """Return the characters of a vocabulary, which must be as many as the model has, and ascend."""
    if points.dtype != np.uint32 or points.shape != (shape.vocabulary,):
        raise ValueError(f"its vocabulary has shape {points.shape} but the model has {shape.vocabulary} characters")
    surrogate = (points >= 0xD800) & (points <= 0xDFFF)
    if (np.diff(points.astype(np.int64)) <= 0).any() or points[-1] > 0x10FFFF or surrogate.any():
        raise ValueError("its vocabulary is not an ordered set of characters")
    return "".join(map(chr, points))


def line_chars(stored: Any) -> tuple[int, ...]:
    """Rebuild the quantiles of the lengths of lines, which must ascend."""
    lengths: tuple[int, ...] = typed(tuple[int, ...], stored, "line_chars")
    if any(b < a for a, b in itertools.pairwise([0, *lengths])) or len(lengths) == 1:
        raise ValueError("its line lengths do not ascend")
    return lengths


# -- fields and types -------------------------------------------------------------------------------------------------


class _Field(NamedTuple):
    """How to check a field: most values are of a plain type and between two bounds, the others need `typed`."""

    plain: type | None
    low: float
    high: float
    hint: Any
    limit: Range | None


def build(cls: type[T], data: Any, what: str) -> T:
    """Build a dataclass from a JSON object, whose keys, types and values must be those that the fields declare."""
    known = _fields(cls)  # type: ignore[arg-type]  # classes are hashable
    if not isinstance(data, dict) or data.keys() != known.keys():
        raise ValueError(f"its {what} must have exactly the fields {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, (plain, low, high, hint, limit) in known.items():
        value = data[name]
        quick = type(value) is plain and low <= value <= high  # type: ignore[operator]  # a history has many values
        if not quick:
            value = typed(hint, value, f"{what}.{name}", limit)
        values[name] = value
    return cls(**values)


@functools.cache
def _fields(cls: type[Any]) -> dict[str, _Field]:
    known = {}
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint: Any = hints[field.name]
        limit: Range | None = None
        if get_origin(hint) is Annotated:
            hint, limit = get_args(hint)[:2]
        plain, low, high = None, 0.0, 0.0
        if limit is not None and limit.high is not None and not limit.open:
            plain = next((kind for kind in (int, float) if hint in (kind, kind | None)), None)
            low, high = limit.low, limit.high
        known[field.name] = _Field(plain, low, high, hint, limit)
    return known


def typed(hint: Any, value: Any, what: str, limit: Range | None = None) -> Any:
    """Return a JSON value if it has the type `hint` and is within a limit.

    An int is accepted for a float, a list for a tuple; the limit applies to the items of a list.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        hint, origin = str, None
    if origin in (types.UnionType, Union):
        if value is None and type(None) in options:
            return None
        return typed(next(o for o in options if o is not type(None)), value, what, limit)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(typed(options[0], item, what, limit) for item in value)
    plain = origin or hint
    number = plain in (int, float) and isinstance(value, (int, plain)) and not isinstance(value, bool)
    if number and (limit is None or value in limit) and value in FINITE:
        return plain(value)
    if plain not in (int, float) and isinstance(value, plain) and not (plain is str and len(value) > MAX_STRING):
        return value
    shown = f"{value!r:.80}"
    if number:
        raise ValueError(f"its {what} is {shown}, which is out of range" + (f": it must be {limit}" if limit else ""))
    raise ValueError(f"its {what} is {shown}, not {getattr(hint, '__name__', hint)}")
