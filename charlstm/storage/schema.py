"""JSON of a checkpoint as dataclasses: exact fields, exact types, values within their limits."""

from __future__ import annotations

import dataclasses
import itertools
import math
import types
import typing
from typing import Any, TypeVar

import numpy as np

from charlstm.nn.config import ModelConfig
from charlstm.settings import TextOptions, TrainConfig
from charlstm.text.corpus import TextInfo

T = TypeVar("T")
READING = {"field": TextOptions.field, "separator": TextOptions.separator, "unescape": TextOptions.unescape}
"""Fields of a text that are stored only if they differ from these defaults."""


def sizes(meta: dict[str, Any]) -> tuple[TrainConfig, ModelConfig]:
    """Return the settings and the model's sizes, checked for their limits and against each other."""
    stored = meta["config"]
    if isinstance(stored, dict):
        stored = {"shards" if key == "parts" else key: value for key, value in stored.items()}  # the name in format 1
    config = build(TrainConfig, stored, "config")
    shape = build(ModelConfig, meta["model"], "model")
    if min(shape.vocabulary, shape.hidden, shape.layers, config.batch, config.seq) < 1 or not 0 <= shape.dropout < 1:
        raise ValueError("its model has a size below 1 or an invalid dropout")
    if (shape.hidden, shape.layers) != (config.hidden, config.layers):  # `config` checked its own limits
        raise ValueError("its model sizes differ from its settings")
    return config, shape


def config_json(config: TrainConfig) -> dict[str, Any]:
    """Return the settings under the names of format 1."""
    return {"parts" if key == "shards" else key: value for key, value in vars(config).items()}


def text_json(text: TextInfo) -> dict[str, Any]:
    """Return the identity of a text without the fields that have their default, which files of old do not have."""
    return {key: value for key, value in vars(text).items() if READING.get(key) != value}


def text_info(stored: Any) -> TextInfo:
    """Rebuild the identity of a text."""
    info = build(TextInfo, READING | stored if isinstance(stored, dict) else stored, "text")
    if info.separator != READING["separator"] and not info.field:
        raise ValueError("its text has a separator but no field")
    return info


def generator(state: Any) -> np.random.Generator:
    """Rebuild a random generator from its saved state."""
    bits = np.random.PCG64()
    bits.state = typed(dict[str, Any], state, "random state")
    return np.random.Generator(bits)


def line_chars(stored: Any) -> tuple[int, ...]:
    """Rebuild the quantiles of the lengths of lines, which must ascend."""
    lengths: tuple[int, ...] = typed(tuple[int, ...], stored, "line_chars")
    if any(b < a for a, b in itertools.pairwise([0, *lengths])) or len(lengths) == 1:
        raise ValueError("its line lengths do not ascend")
    return lengths


def build(cls: type[T], data: Any, what: str) -> T:
    """Build a dataclass from a JSON object, whose keys and types must match the fields exactly."""
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(data, dict) or set(data) != set(fields):
        raise ValueError(f"its {what} must have exactly the fields {', '.join(fields)}")
    return cls(**{name: typed(hints[name], data[name], f"{what}.{name}") for name in fields})


def typed(hint: Any, value: Any, what: str) -> Any:
    """Return a JSON value if it has the type `hint`; an int is accepted for a float, a list for a tuple."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        hint, origin = str, None
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        return typed(next(o for o in options if o is not type(None)), value, what)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(typed(options[0], item, what) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    plain = origin or hint
    if plain is not float and isinstance(value, plain) and (plain is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"its {what} is {value!r:.80}, not {getattr(hint, '__name__', hint)}")
