"""How much memory training takes, and how much this process can get."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from charlstm import launcher
from charlstm.errors import UsageError
from charlstm.inference import evaluation, ngram
from charlstm.nn import model, optim
from charlstm.nn.config import ModelConfig
from charlstm.settings import TrainConfig

BASE_BYTES = 60_000_000
"""Memory in bytes that Python, NumPy and charlstm use before any text is read."""
CGROUPS = (("", "memory.max", "memory.current", "inactive_file"),
           ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))  # fmt: skip
"""Versions 2 and 1 of Linux control groups: folder, limit, usage, and the part of it that is only cache."""


def weights_bytes(shape: ModelConfig, config: TrainConfig) -> int:
    """Estimate the memory in bytes of everything in training that grows with the number of parameters.

    All numbers are float32. Weights are stored up to four times (current, averaged, last good, and at the start). Each shard
    has its gradients, and about two copies of its weights in the layout that the loops need.
    """
    shapes = model.shapes(shape)
    slots = optim.slot_names(config.optimizer, shapes, model.hidden_matrices(shape))
    shards = math.ceil(config.shards / launcher.hosts)
    numbers = model.parameter_count(shape) * (4 + (5 if shape.dropout else 3) * shards)
    return 4 * (numbers + sum(math.prod(shapes[name]) for name in slots.values()))


def training_bytes(shape: ModelConfig, config: TrainConfig, chars: int, mapped: bool, val_chars: int = 0) -> int:
    """Estimate the memory in bytes that training takes: program, text, weights, buffers and n-gram baseline.

    A mapped text counts nothing: the system reads its file into memory that it can take back at any time. `val_chars` is the
    length of a held-out text that is not part of the text.
    """
    held_out = val_chars or int(chars * config.val_fraction)
    train_chars = chars if val_chars else chars - held_out
    ids = ((0 if mapped else chars) + val_chars) * np.min_scalar_type(shape.vocabulary - 1).itemsize
    window = model.Workspace.numbers(shape, config.seq, config.batch)
    evaluated = model.Workspace.numbers(shape, evaluation.window_steps(shape), evaluation.STREAMS)
    preview = 9 * shape.vocabulary * shape.hidden  # `Stepper` tabulates its inputs, and copies them meanwhile
    baseline = ngram.memory_bytes(train_chars if held_out else 0)
    programs = BASE_BYTES * math.ceil(launcher.ranks / launcher.hosts)
    return programs + ids + weights_bytes(shape, config) + 4 * (window + evaluated + preview) + baseline


def check_memory(
    shape: ModelConfig, config: TrainConfig, chars: int, mapped: bool, remedy: str | None = None, val_chars: int = 0
) -> None:
    """Raise a UsageError if training would take more memory than there is.

    Args:
        shape: sizes of the model.
        config: settings of the run.
        chars: length of the text.
        mapped: whether its ids are in a mapped file.
        remedy: what to do about it; None: lower a setting.
        val_chars: length of a held-out text that is not part of the text.
    """
    needed, available = training_bytes(shape, config, chars, mapped, val_chars), available_bytes()
    if available is not None and needed > available:
        large = weights_bytes(shape, config) > needed / 2
        lower = "lower `hidden` or `layers`" if large else "lower `batch` or `seq`, or give a shorter text"
        raise UsageError(
            f"training needs about {needed / 1e9:.2f} GB of memory, and {available / 1e9:.2f} GB are available: {remedy or lower}"
        )


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory in bytes that this process has and can still get, or None if the system does not say.

    It is the least of what the machine has left, what the control groups of the process allow, and its own limit of
    address space, each with the memory that the process uses already.

    Args:
        root: folder with ``proc`` and ``sys``; tests use another one.
    """
    if sys.platform != "linux":
        return None
    used, mapped = _own_bytes(root)
    rooms = [*_machine(root), *_control_groups(root)]
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        rooms += [limit - mapped] if limit != resource.RLIM_INFINITY else []
    return max(0, min(rooms)) + used if rooms else None


def _own_bytes(root: Path) -> tuple[int, int]:
    """Return the resident memory and the address space of this process."""
    sizes = _numbers(root / "proc/self/status")
    return 1024 * sizes.get("VmRSS:", 0), 1024 * sizes.get("VmSize:", 0)


def _machine(root: Path) -> list[int]:
    available = _numbers(root / "proc/meminfo").get("MemAvailable:")
    return [] if available is None else [1024 * available]


def _control_groups(root: Path) -> list[int]:
    """Return how much each control group of this process can still get; those above it count, too."""
    rooms, groups = [], {}
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(errors="replace").splitlines():
            _, controllers, path = line.split(":", 2)
            groups["" if not controllers else "memory" if "memory" in controllers.split(",") else "-"] = path
    for folder, limit_name, usage_name, cache_name in CGROUPS:
        top = root / "sys/fs/cgroup" / folder
        group = top / groups.get(folder, "").strip("/")  # in a container, the path may be that of the host
        for place in dict.fromkeys([group, *group.parents, top]):
            with suppress(OSError, ValueError):  # no such group, or its limit is "max"
                limit = int((place / limit_name).read_text())
                usage = int((place / usage_name).read_text())
                rooms.append(limit - usage + _numbers(place / "memory.stat").get(cache_name, 0))
            if place == top:
                break
    return rooms


def _numbers(path: Path) -> dict[str, int]:
    """Return the second word of each line of a file by the first, where it is a number."""
    fields = {}
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[1].isdigit():
                fields[words[0]] = int(words[1])
    return fields
