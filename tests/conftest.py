"""Fixtures that many tests share: a small text, a folder to work in, and the program as a shell would call it."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from charlstm import blas
from charlstm.cli.app import main

if os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
):  # hundreds of processes would each compile everything: they do it once, elsewhere
    os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="charlstm-tests-")
    atexit.register(shutil.rmtree, os.environ["PYTHONPYCACHEPREFIX"], ignore_errors=True)

blas.prepare()  # as the program does, before anything imports NumPy

ROOT = Path(__file__).resolve().parent.parent
VERSES = (
    "the cat sat on the mat and the dog lay by the door,\n"
    "a mouse ran over the floor and was seen no more;\n"
    "who let the hen into the garden, asked the old man,\n"
    "and nobody told him that she flew in as hens can.\n"
)


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


SMALL = ("--hidden", "8", "--batch", "4", "--seq", "10", "--preview-every", "0")


def spawn(*words: object, **more: object) -> subprocess.Popen[bytes]:
    """Start the program as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(more.pop("env", None) or {})}  # type: ignore[dict-item]
    command = [sys.executable, "-m", "charlstm", *(str(word) for word in words)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, **{**pipes, **more})  # type: ignore[call-overload,no-any-return]
