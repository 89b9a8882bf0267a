"""Fixtures that many tests share: a small text, a folder to work in, the program as a shell would call it, and trained runs to copy."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charlstm import blas
from charlstm.cli.app import main

if os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
):  # hundreds of processes would each compile everything: they do it once, elsewhere
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="charlstm-tests-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell starts what is to run in the background with Ctrl-C ignored, and every process that a test starts would inherit that."""

blas.prepare()  # as the program does, before anything imports NumPy

ROOT = Path(__file__).resolve().parent.parent
VERSES = (
    "the cat sat on the mat and the dog lay by the door,\n"
    "a mouse ran over the floor and was seen no more;\n"
    "who let the hen into the garden, asked the old man,\n"
    "and nobody told him that she flew in as hens can.\n"
)


SMALL = ("--hidden", "8", "--batch", "4", "--seq", "10", "--preview-every", "0")

slow = pytest.mark.slow
"""Left out of the default run: a sweep over what one test of the default run shows already, or minutes of training."""


def sweep(values: Mapping[str, Any] | Iterable[Any], *default: Any) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: those in `default`, by name or by value, run always, the others are slow."""
    named = values if isinstance(values, Mapping) else {value: value for value in values}
    unknown = set(default) - set(named)
    assert not unknown, f"not in the sweep: {unknown}"
    return [pytest.param(value, id=str(name), marks=() if name in default else slow) for name, value in named.items()]


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence that an error must be."""
        lines = [line for line in self.err.splitlines() if line.startswith("charlstm: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CHARLSTM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def text(folder: Path) -> Path:
    """A file of some 4,000 characters in the working folder."""
    path = folder / "verses.txt"
    path.write_text(VERSES * 20, encoding="utf-8")
    return path


@pytest.fixture
def charlstm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the program in this process: charlstm("train", "verses.txt", "--steps", 5)."""

    def run(*words: object) -> Result:
        capfd.readouterr()
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it holds; on a busy machine that takes its time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def training_room(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """Trains on the verses, each request once a session; returns the files that came of it, by their endings."""
    made: dict[tuple[str, ...], dict[str, bytes]] = {}

    def trained(*options: str) -> dict[str, bytes]:
        if options not in made:
            folder = tmp_path_factory.mktemp("trained")
            (folder / "verses.txt").write_text(VERSES * 20, encoding="utf-8")
            words = ["train", str(folder / "verses.txt"), "--checkpoints", str(folder), "--display", "none"]
            with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
                assert main([*words, *options, *SMALL]) == 0
            made[options] = {path.name.removeprefix("verses"): path.read_bytes() for path in folder.glob("verses*.npz")}
        return made[options]

    return trained


@pytest.fixture
def copy_run(training_room: Callable[..., dict[str, bytes]], text: Path) -> Callable[..., None]:
    """Put a run on the text into the working folder: copy_run(60, "--eval-every", 5, name="first") as `train` would with SMALL."""
    import numpy as np

    def copy(steps: int, *options: object, name: str = "verses") -> None:
        Path("checkpoints").mkdir(exist_ok=True)
        for ending, data in training_room("--steps", str(steps), *map(str, options)).items():
            with np.load(io.BytesIO(data)) as members:
                arrays = dict(members)
            meta = json.loads(arrays["meta"].tobytes())
            meta["text"]["sources"] = [str(text)]
            arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
            np.savez(f"checkpoints/{name}{ending}", **arrays)

    return copy


def spawn(*words: object, **more: object) -> subprocess.Popen[bytes]:
    """Start the program as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(more.pop("env", None) or {})}  # type: ignore[dict-item]
    command = [sys.executable, "-m", "charlstm", *(str(word) for word in words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**pipes, **more})  # type: ignore[call-overload,no-any-return]
