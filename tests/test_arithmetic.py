"""Whether a run goes on to the bit depends on the machine's arithmetic: it is known by its fingerprint, and told where it differs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlstm import launch
from charlstm.storage import checkpoint
from charlstm.training.fingerprint import fingerprint
from tests.conftest import ROOT, SMALL, Result

NOTE = "not bit-identically"
PATH = Path("checkpoints/verses.npz")


@pytest.fixture
def trained(copy_run: Callable[..., None]) -> None:
    copy_run(5)


def elsewhere(**environment: str) -> str:
    """The fingerprint in a process whose BLAS or NumPy was told to compute as on another processor."""
    code = "from charlstm.training.fingerprint import fingerprint; print(fingerprint())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def test_the_fingerprint_is_the_same_in_another_process_and_with_another_number_of_threads() -> None:
    assert elsewhere() == elsewhere(OPENBLAS_NUM_THREADS="1") == fingerprint()


@pytest.mark.skipif("openblas" not in str(np.show_config(mode="dicts")).lower(), reason="no OpenBLAS to be told")
def test_the_fingerprint_is_another_with_the_kernels_of_another_processor() -> None:
    found = {elsewhere(OPENBLAS_CORETYPE=core) for core in ("Nehalem", "Prescott", "Haswell")}
    found.discard("")  # newer builds have no kernels for the oldest, and die when told to use them
    if found == {fingerprint()}:
        pytest.skip("this OpenBLAS has one kind of kernels only")
    assert len(found) > 1


def test_a_run_that_goes_on_on_the_same_machine_says_nothing(charlstm: Callable[..., Result], trained: None) -> None:
    assert checkpoint.load_run(PATH).arithmetic == fingerprint()
    assert NOTE not in charlstm("resume", "--steps", 7).err


def test_a_run_that_goes_on_on_another_machine_says_once_that_it_is_no_longer_exact(
    charlstm: Callable[..., Result], trained: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "fingerprint", lambda: "0" * 64)
    result = charlstm("resume", "--steps", 7)
    assert result.status == 0
    assert NOTE in result.err
    assert NOTE not in charlstm("resume", "--steps", 9).err


def test_a_file_that_does_not_say_where_it_was_trained_goes_on_without_a_word(
    charlstm: Callable[..., Result], trained: None
) -> None:
    with zipfile.ZipFile(PATH) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(np.load(io.BytesIO(members["meta.npy"])).tobytes())
    del meta["arithmetic"]
    file = io.BytesIO()
    np.save(file, np.frombuffer(json.dumps(meta).encode(), np.uint8))
    with zipfile.ZipFile(PATH, "w") as archive:
        for name, data in (members | {"meta.npy": file.getvalue()}).items():
            archive.writestr(name, data)
    result = charlstm("resume", "--steps", 7)
    assert result.status == 0
    assert NOTE not in result.err


def test_another_number_of_threads_changes_no_byte(charlstm: Callable[..., Result], text: Path) -> None:
    files = []
    for threads in (1, 2):
        assert charlstm("train", text, "--steps", 6, "--threads", 2, "--if-exists", "overwrite", *SMALL).status == 0
        assert charlstm("resume", "--steps", 12, "--threads", threads).status == 0
        files.append(PATH.read_bytes())
    assert files[0] == files[1]
