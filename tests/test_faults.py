"""Each call into the system that a save makes fails in turn, or is the last one of its process: the old file or the new one is there, whole.

By default the first, a middle and the last call of each kind; every single one is slow.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charlstm import events, launch, session
from charlstm.errors import SaveError
from charlstm.settings import Budget, RunOptions, TrainRequest
from charlstm.storage import atomic, checkpoint, saver
from charlstm.storage.lock import Lock
from charlstm.storage.runs import RunFiles
from charlstm.training.control import Stop
from tests import faults
from tests.conftest import ROOT, SMALL, Result, slow, spawn, sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="calls of POSIX")

GOES_ON = {"seek", "fstat", "fchown", "fchmod"}
"""Calls that a save does without: zipfile need not seek, and a file may have another owner or mode than before."""
ERRORS = ("ENOSPC", "EACCES", "EIO", "EMFILE", "EROFS")
FROZEN = ROOT / "tests" / "data" / "format1.npz"
PATH = Path("checkpoints/verses.npz")
BEST = Path("checkpoints/verses.best.npz")

Program = Callable[..., Result]


class Fault:
    """Makes one call of every save fail, counted from 1; knows its name, and whether there was such a call."""

    def __init__(self, number: int, error: str) -> None:
        self.number, self.error, self.met = number, error, ""

    def __call__(self, path: Path, number: int, name: str) -> None:
        if number == self.number:
            self.met = self.met or name  # by the first save that got so far
            code = getattr(errno, self.error)
            raise OSError(code, os.strerror(code))


@pytest.fixture
def trained(copy_run: Callable[..., None]) -> None:
    copy_run(5)


def left_over() -> list[str]:
    return [path.name for path in Path().rglob(".*.tmp")]


def test_the_calls_of_a_save_are_all_there_and_in_the_order_that_lasts(trained: None) -> None:
    names: list[str] = []
    with faults.in_saves(lambda path, number, name: names.append(name)):
        checkpoint.save_run(PATH, checkpoint.load_run(PATH))
    assert names.index("open") < names.index("write")
    assert names.count("write") > 20
    assert names[-6:] == ["fsync", "close", "replace", "open", "fsync", "close"]


def calls(do: Callable[[], object]) -> list[list[str]]:
    """What each save calls, in order, while something is done that saves."""
    saves: list[list[str]] = []

    def note(path: Path, number: int, name: str) -> None:
        if number == 1:
            saves.append([])
        saves[-1].append(name)

    with faults.in_saves(note):
        do()
    return saves


def places(saves: list[list[str]], everywhere: bool) -> list[int]:
    """The numbers of all calls of the longest save, or of the first, a middle and the last one of each kind."""
    names = max(saves, key=len)
    if everywhere:
        return list(range(1, len(names) + 1))
    found: set[int] = set()
    for kind in names:
        numbers = [number for number, name in enumerate(names, 1) if name == kind]
        found |= {numbers[0], numbers[len(numbers) // 2], numbers[-1]}
    return sorted(found)


@pytest.mark.parametrize(
    ("error", "everywhere"), [("ENOSPC", False), *(pytest.param(error, True, marks=slow) for error in ERRORS)]
)
def test_whichever_call_fails_the_file_is_the_old_one_or_the_new_one(
    folder: Path, error: str, everywhere: bool
) -> None:
    path = folder / "run.npz"
    shutil.copy(FROZEN, path)
    run = checkpoint.load_run(path)
    checkpoint.save_run(path, run)
    old = path.read_bytes()
    run.step += 1
    numbers = places(calls(lambda: checkpoint.save_run(path, run)), everywhere)
    new = path.read_bytes()
    told = 0
    for number in numbers:
        path.write_bytes(old)
        fault = Fault(number, error)
        complaint = ""
        with faults.in_saves(fault):
            try:
                checkpoint.save_run(path, run)
            except SaveError as failure:
                complaint = str(failure)
        assert fault.met
        told += complaint != ""
        assert path.read_bytes() in (old, new) or fault.met == "seek"
        assert os.strerror(getattr(errno, error)) in complaint or fault.met in GOES_ON
        assert checkpoint.load_run(path).step in (run.step - 1, run.step)
        assert left_over() == []
    assert told > (60 if everywhere else 8)


@pytest.mark.parametrize("everywhere", sweep([False, True], False))
@pytest.mark.parametrize("command", sweep(["train", "resume", "sample"], "train"))
def test_whichever_call_fails_each_command_says_it_in_one_sentence_and_ends_with_status_1(
    charlstm: Program, trained: None, text: Path, command: str, everywhere: bool
) -> None:
    """The errors take turns, so that each call meets one."""
    words: dict[str, tuple[Any, ...]] = {
        "train": ("train", text, "--steps", 5, "--if-exists", "overwrite", "--display", "none", *SMALL),
        "resume": ("resume", "--steps", 7, "--preview-every", 0, "--display", "none"),
        "sample": ("sample", "--length", 20, "--seed", 1, "--output", "out.txt"),
    }
    files = [Path("out.txt")] if command == "sample" else [PATH, BEST]
    files[0].touch()
    before = [path.read_bytes() for path in files]

    def put_back() -> None:
        for path, data in zip(files, before, strict=True):
            path.write_bytes(data)

    saves = calls(lambda: charlstm(*words[command]))
    first_replaced = min(names.index("replace") for names in saves) + 1
    met = set()
    for turn, number in enumerate(places(saves, everywhere)):
        put_back()
        fault = Fault(number, ERRORS[turn % len(ERRORS)])
        with faults.in_saves(fault):
            result = charlstm(*words[command])
        met.add(fault.met)
        if fault.met not in GOES_ON:
            assert result.status == 1, (fault.met, result.err)
            assert os.strerror(getattr(errno, fault.error)) in result.sentence
            assert result.out == ""
            if number <= first_replaced:
                assert [path.read_bytes() for path in files] == before
        if command != "sample":
            assert checkpoint.load_run(PATH).config.batch == 4
        assert left_over() == []
    assert {"open", "write", "fsync", "close", "replace"} <= met
    put_back()
    assert charlstm(*words[command]).status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("everywhere", sweep([False, True], False))
def test_a_process_that_dies_between_any_two_calls_of_a_save_leaves_a_whole_file(
    folder: Path, everywhere: bool
) -> None:
    path = folder / "run.npz"
    run = checkpoint.load_run(FROZEN)
    checkpoint.save_run(path, run)
    old = path.read_bytes()
    run.step += 1
    numbers = places(calls(lambda: checkpoint.save_run(path, run)), everywhere)
    new = path.read_bytes()
    seen, lock = set(), Lock(path)

    def die(number: int) -> None:
        with faults.in_saves(lambda path, n, name: os.kill(os.getpid(), signal.SIGKILL) if n == number else None):
            checkpoint.save_run(path, run)
        os._exit(0)

    for number in numbers:
        path.write_bytes(old)
        pid = os.fork()
        if not pid:
            die(number)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        seen.add(path.read_bytes())
        saver.CheckpointSaver(RunFiles.of(path), run, lock).clean_up()
        assert left_over() == []
    assert seen == {old, new}


# -- a disk that is full, a folder that is gone or closed


def begin(text: Path, steps: int = 40) -> session.Session:
    overrides = {"hidden": 8, "layers": 1, "batch": 4, "seq": 10, "eval_every": 10}
    options = RunOptions(preview_every_s=0, save_every_s=0, threads=1)
    return launch.start(TrainRequest((str(text),), overrides, Budget(steps=steps), options), Stop())


def driven(run: session.Session, do: Callable[[events.Event], None]) -> tuple[list[str], str]:
    """Train, doing something at each event; returns why saves failed, and why the run did, if so."""
    reasons = []
    try:
        for event in run.run():
            do(event)
            if isinstance(event, events.SaveFailed):
                reasons.append(event.reason)
    except SaveError as error:
        return reasons, str(error)
    return reasons, ""


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "close", "replace"])
def test_a_save_that_fails_later_on_is_told_at_once_and_the_first_one_stands(
    charlstm: Program, text: Path, kind: str
) -> None:
    saves = 0

    def fail(path: Path, number: int, name: str) -> None:
        nonlocal saves
        saves += number == 1
        if saves > 1 and name == kind:
            raise OSError(errno.ENOSPC, "No space left on device")

    with faults.in_saves(fail):
        result = charlstm("train", text, "--steps", 30, "--save-every", 0, *SMALL)
    assert result.status == 1
    assert "training continues" in result.err
    assert "No space left on device" in result.sentence
    assert checkpoint.load_run(PATH).step == 0


def test_a_disk_that_is_full_in_the_middle_of_a_file_leaves_the_old_one(trained: None) -> None:
    """The system itself refuses to write on: the file may be no larger than half of what it needs.

    No bytecode is written meanwhile: Python would keep half a file of it, and every later process would fail on that.
    """
    import resource

    before = PATH.read_bytes()
    limit = (len(before) // 2, len(before) // 2)
    process = spawn(
        "resume", "--steps", 9, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit), env={"PYTHONDONTWRITEBYTECODE": "1"}
    )  # fmt: skip
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"File too large" in err.splitlines()[-1]
    assert b"Traceback" not in err
    assert PATH.read_bytes() == before
    assert left_over() == []


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_folder_that_vanishes_while_training_is_told_and_saved_to_again_once_it_is_back(
    text: Path, comes_back: bool
) -> None:
    for _ in begin(text).run():
        pass
    undisturbed = [PATH.read_bytes(), BEST.read_bytes()]
    PATH.unlink()
    BEST.unlink()

    def vanish(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.step == 12:
            shutil.rmtree("checkpoints")
        if isinstance(event, events.Progress) and event.step == 38 and comes_back:
            Path("checkpoints").mkdir()

    reasons, end = driven(begin(text), vanish)
    assert "No such file or directory" in reasons[0]
    if comes_back:
        assert [PATH.read_bytes(), BEST.read_bytes()] == undisturbed
    else:
        assert "No such file or directory" in end


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_becomes_read_only_while_training_is_told(text: Path) -> None:
    def close(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.step == 12:
            Path("checkpoints").chmod(0o500)

    reasons, end = driven(begin(text), close)
    Path("checkpoints").chmod(0o700)
    assert "Permission denied" in reasons[0]
    assert "Permission denied" in end
    assert checkpoint.load_run(PATH).step < 12


def test_a_lock_that_can_t_name_its_holder_is_a_lock_all_the_same(
    charlstm: Program, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 0


def test_a_run_that_is_overwritten_keeps_its_best_model_until_the_new_one_is_on_disk(
    charlstm: Program, trained: None, text: Path
) -> None:
    before = BEST.read_bytes()
    again = ("train", text, "--steps", 3, "--val-fraction", 0, "--if-exists", "overwrite", *SMALL)

    def full(path: Path, *_: object) -> None:
        raise SaveError(f"{path} can't be written: No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "write_atomically", full)
        assert charlstm(*again).status == 1
    assert BEST.read_bytes() == before
    assert charlstm(*again).status == 0
    assert not BEST.exists()
