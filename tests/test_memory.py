"""Memory: a run that does not fit is refused before anything is written, and running out of it is one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from charlstm import session
from charlstm.training import loop, memory
from tests.conftest import ROOT, SMALL, Result

Program = Callable[..., Result]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory there is")
GB = 10**9


def system(root: Path, files: dict[str, object]) -> Path:
    """A folder with such files in place of the system's."""
    for name, content in {"proc/self/status": "VmRSS: 100000 kB\nVmSize: 200000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


@linux
def test_what_is_available_is_the_least_of_machine_and_control_groups(tmp_path: Path) -> None:
    own, machine = 102_400_000, {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4000000 kB"}
    assert memory.available_bytes(system(tmp_path / "bare", {})) is None
    assert memory.available_bytes(system(tmp_path / "machine", machine)) == 4_096_000_000 + own
    v2 = {
        "proc/self/cgroup": "0::/user/job",
        "sys/fs/cgroup/user/memory.max": 2 * GB,
        "sys/fs/cgroup/user/memory.current": GB,
        "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GB // 2}",
        "sys/fs/cgroup/user/job/memory.max": "max",
    }
    assert memory.available_bytes(system(tmp_path / "v2", machine | v2)) == 1.5 * GB + own
    v1 = {  # as in a container, where the path is that of the host
        "proc/self/cgroup": "4:memory:/docker/abc\n0::/",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": GB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 3 * GB,
    }
    assert memory.available_bytes(system(tmp_path / "v1", machine | v1)) == own


@pytest.mark.parametrize(
    ("options", "lower"),
    [
        (("--hidden", 8192, "--layers", 4), "--hidden or --layers"),
        (("--hidden", 8, "--batch", 9000), "--batch or --seq"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], lower: str
) -> None:
    text.write_text(text.read_text() * 20)
    monkeypatch.setattr(memory, "available_bytes", lambda: 70_000_000)
    told = charlstm("train", text, "--steps", 1, *options)
    assert told.status == 2
    assert "GB of memory, and 0.07 GB are available" in told.sentence
    assert lower in told.sentence
    assert not Path("checkpoints").exists()


@linux
def test_a_limit_of_address_space_counts(text: Path) -> None:
    script = "import resource, sys; from charlstm.cli.app import main; import numpy\n"
    script += "resource.setrlimit(resource.RLIMIT_AS, (4 * 10**9,) * 2); sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", script, "train", str(text), "--hidden", "8192", "--layers", "4", "--steps", "1"]
    done = subprocess.run(
        words, cwd=text.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "are available: lower --hidden or --layers" in done.stderr
    assert done.stderr.count("\n") == 1


def test_out_of_memory_before_the_first_step_leaves_no_useless_file(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(loop, "train", fail)
    told = charlstm("train", text, "--steps", 1, *SMALL)
    assert told.status == 1
    assert "out of memory before the first step" in told.sentence
    assert not list(Path("checkpoints").glob("*.npz"))


def test_out_of_memory_before_the_first_step_keeps_the_weights_that_a_run_is_updated_from(
    charlstm: Program, copy_run: Callable[..., None], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_run(5)
    text.write_text(text.read_text() + "and more")

    def fail(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(session.loop, "train", fail)
    told = charlstm("train", text, "--steps", 9, "--if-exists", "update")
    assert "out of memory before the first step" in told.sentence
    assert charlstm("sample", "verses", "-l", 5).status == 0


def test_out_of_memory_later_keeps_the_last_save(
    charlstm: Program, copy_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_run(5)

    def fail(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(session.loop, "train", fail)
        told = charlstm("resume", "verses", "--steps", 9)
    assert told.status == 1
    assert "out of memory at step 5" in told.sentence
    assert "charlstm resume verses" in told.sentence
    assert charlstm("resume", "verses", "--steps", 6).status == 0


def test_out_of_memory_and_threads_that_cannot_start_are_one_sentence_each(
    charlstm: Program, copy_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from charlstm.inference import sampling

    copy_run(5)
    for error, said in ((MemoryError(), "out of memory"), (RuntimeError("can't start new thread"), "no thread")):

        def fail(*_: object, error: Exception = error, **__: object) -> NoReturn:
            raise error

        monkeypatch.setattr(sampling, "generate", fail)
        told = charlstm("sample", "verses", "--length", 5)
        assert told.status == 1
        assert said in told.sentence
