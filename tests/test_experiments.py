"""The experiments that take long, in small: what they show at length must hold for a few."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import mpi
from tests.conftest import ROOT, slow

pytestmark = [slow, pytest.mark.skipif(sys.platform == "win32", reason="they are for POSIX")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("kill", "--runs", "2"), "2 of 2 runs"),
        (("texts", "--files", "80", "--seed", "5"), "80 texts"),
        (("cron", "--times", "2", "--steps", "100"), "2 jobs, one after the other: 0 things went wrong"),
        pytest.param(
            ("ranks", "--jobs", "1", "--ranks", "2"),
            "1, continued by the same command",
            marks=pytest.mark.skipif(mpi.mpirun() is None, reason="no mpi4py, or no mpirun"),
        ),
        (("hostile", "--files", "25", "--commands", "3"), "25 files"),
        (
            ("variants", "corpora/fables.txt", "hidden=8 recipe.rates={'out.W':0.5,'layer1.U':2}", "--steps", "2"),
            "| `hidden=8 recipe.rates={'out.W':0.5,'layer1.U':2}` | **",
        ),
    ],
)
def test_an_experiment_in_small_shows_what_it_is_to_show(words: tuple[str, ...], expected: str) -> None:
    command = [sys.executable, "-m", f"tests.experiments.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
