"""Weights for other programs: as float16 or int8 for a page, and as the tensors of `torch.nn.LSTM` for PyTorch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from charlstm.errors import UsageError
from charlstm.nn.config import ModelConfig
from charlstm.nn.model import layer_names
from charlstm.nn.types import Array, Arrays

LARGEST_HALF = 65504.0
"""The largest finite float16."""
ALIGNMENT = 4
"""Every array begins at a multiple of this many bytes: a browser can then view it in place."""
TORCH_GATES = [0, 1, 3, 2]
"""PyTorch stacks the gates as i, f, g, o; charlstm as i, f, o, g."""


@dataclass(frozen=True)
class Packed:
    """Parameters in the bytes that a page contains.

    ``entries`` lists for each array its name, its rows and columns (a vector is one row), the offset of its bytes and its bits.
    With 16 bits they are float16 numbers, with 8 bits a float32 scale for each row and then the int8 numbers.
    """

    entries: list[dict[str, Any]]
    data: bytes


def pack(params: Arrays, bits: int) -> Packed:
    """Pack parameters as float16 (16 bits) or matrices as int8 with a scale for each row and vectors as float16 (8 bits).

    Raises:
        UsageError: `bits` is neither 8 nor 16, or a weight is too large for float16.
    """
    if bits not in (8, 16):
        raise UsageError(f"`bits` {bits} is not possible: it must be 8 or 16")
    entries: list[dict[str, Any]] = []
    data = bytearray()
    for name, array in params.items():
        rows, columns = array.shape if array.ndim == 2 else (1, len(array))
        width = bits if array.ndim == 2 else 16
        data += b"\0" * (-len(data) % ALIGNMENT)
        entries.append({"name": name, "rows": rows, "columns": columns, "offset": len(data), "bits": width})
        if width == 8:
            scales, numbers = _quantize(array)
            data += scales.astype("<f4").tobytes() + numbers.tobytes()
        else:
            data += _half(name, array).tobytes()
    return Packed(entries, bytes(data))


def unpack(packed: Packed) -> Arrays:
    """The parameters as a page reads them: float32 arrays, vectors of shape (n,)."""
    params: Arrays = {}
    for entry in packed.entries:
        rows, columns, offset = entry["rows"], entry["columns"], entry["offset"]
        if entry["bits"] == 8:
            scales = np.frombuffer(packed.data, "<f4", rows, offset).astype(np.float32)
            numbers = np.frombuffer(packed.data, np.int8, rows * columns, offset + 4 * rows)
            array = numbers.reshape(rows, columns) * scales[:, None]
        else:
            array = np.frombuffer(packed.data, "<f2", rows * columns, offset).astype(np.float32).reshape(rows, columns)
        params[entry["name"]] = array[0] if entry["name"].endswith(".b") else array
    return params


def _half(name: str, array: Array) -> Array:
    """An array as little-endian float16."""
    if np.abs(array).max(initial=0) > LARGEST_HALF:
        raise UsageError(f"{name} has a weight too large for 16 bits: use `bits` 8")
    half: Array = array.astype("<f2")
    return half


def _quantize(matrix: Array) -> tuple[Array, Array]:
    """A float32 scale for each row (rows,), and the int8 numbers (rows, columns) that it multiplies."""
    scales = (np.abs(matrix).max(axis=1, initial=0) / np.float32(127)).astype(np.float32)
    numbers = np.rint(matrix / np.where(scales > 0, scales, 1)[:, None])
    return scales, np.clip(numbers, -127, 127).astype(np.int8)


def safetensors(params: Arrays, config: ModelConfig, characters: str, facts: dict[str, Any]) -> bytes:
    """The bytes of a .safetensors file with the names, shapes and gate order of `torch.nn.LSTM`.

    Tensors: ``lstm.weight_ih_l0`` (4H, D), ``lstm.weight_hh_l0`` (4H, H), ``lstm.bias_ih_l0`` and ``lstm.bias_hh_l0`` (4H,), and so on for
    every layer; ``output.bias`` (V,). Without an embedding D is V and there is ``output.weight`` (V, H). With one there are
    ``embedding.weight`` (V, E), which is also the output's weight, and ``projection.weight`` (E, H) before it.

    Args:
        params: the model's.
        config: the model's.
        characters: the vocabulary.
        facts: more about the model, for the metadata; JSON values.

    The metadata have one key, ``charlstm``, which is JSON: several keys would be written in random order.

    Raises:
        UsageError: the safetensors package is not installed.
    """
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise UsageError("a .safetensors file needs the safetensors package: pip install 'charlstm[torch]'") from error
    tensors: Arrays = {"output.bias": params["out.b"]}
    for k, name in enumerate(layer_names(config)):
        W, U, b = (_torch_gates(params[f"{name}.{part}"]) for part in ("W", "U", "b"))
        tensors |= {f"lstm.weight_ih_l{k}": W, f"lstm.weight_hh_l{k}": U}
        tensors |= {f"lstm.bias_ih_l{k}": b, f"lstm.bias_hh_l{k}": np.zeros_like(b)}  # PyTorch adds two biases
    if config.multiplicative:
        tensors["scale.weight"] = params["layer1.M"]
    if config.embedding:
        tensors |= {"embedding.weight": params["embed.E"], "projection.weight": params["out.P"]}
    else:
        tensors["output.weight"] = params["out.W"]
    about = {"config": asdict(config), "vocabulary": characters, **facts}
    data: bytes = save(
        {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)},
        metadata={"charlstm": json.dumps(about, sort_keys=True)},
    )
    return data


def _torch_gates(array: Array) -> Array:
    """Rows (4H, …) in PyTorch's order of the gates."""
    gates = array.reshape(4, -1, *array.shape[1:])
    reordered: Array = gates[TORCH_GATES].reshape(array.shape)
    return reordered
