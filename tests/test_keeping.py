"""A run's files: one writer, nothing lost where saving fails for a while, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlstm import events, launch, session
from charlstm.errors import SaveError, UsageError
from charlstm.settings import Budget, RunOptions, TrainRequest
from charlstm.storage import atomic, checkpoint
from charlstm.storage.lock import Lock, trainer_of
from charlstm.storage.runs import find_run
from charlstm.text import corpus
from charlstm.training import data_parallel
from charlstm.training.control import Stop
from tests.conftest import SMALL, Result, slow

WISHES = {"hidden": 8, "layers": 1, "batch": 4, "seq": 10, "eval_every": 10}


def begin(text: Path, steps: int = 40, **options: float) -> session.Session:
    request = TrainRequest(
        (str(text),), WISHES, Budget(steps=steps), RunOptions(preview_every_s=0, threads=1, **options)
    )
    return launch.start(request, Stop())


def breaking(monkeypatch: pytest.MonkeyPatch, works: Callable[[int], bool]) -> list[Path]:
    """Let saves fail, as on a full disk, where works(number of the attempt) is false; returns what was tried."""
    tried: list[Path] = []
    write = atomic.write_atomically

    def maybe(path: Path, content: Callable[..., None]) -> None:
        tried.append(path)
        if not works(len(tried)):
            raise SaveError(f"{path} can't be written: No space left on device")
        write(path, content)

    monkeypatch.setattr(atomic, "write_atomically", maybe)
    return tried


def test_training_goes_on_where_saving_fails_and_nothing_is_lost_in_the_end(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in begin(text).run():
        pass
    undisturbed = [Path(f"checkpoints/verses{end}").read_bytes() for end in (".npz", ".best.npz")]
    for path in Path("checkpoints").glob("*"):
        path.unlink()
    seen: list[events.Event] = []
    breaking(monkeypatch, lambda attempt: attempt in (1, 7, 8, 9) or seen[-1].step >= 39)  # the disk is back then
    for event in begin(text, save_every_s=0).run():
        seen.append(event)
    failed = [event for event in seen if isinstance(event, events.SaveFailed)]
    assert failed
    assert "No space left" in failed[0].reason
    assert [Path(f"checkpoints/verses{end}").read_bytes() for end in (".npz", ".best.npz")] == undisturbed


def test_a_run_that_could_never_be_saved_ends_with_status_1_and_the_old_file(
    charlstm: Callable[..., Result], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, lambda attempt: attempt == 1)
    result = charlstm("train", text, "--steps", 30, *SMALL)
    assert result.status == 1
    assert "No space left on device" in result.err.splitlines()[-1]
    assert "training continues" in result.err
    assert checkpoint.load_run(Path("checkpoints/verses.npz")).step == 0


def test_a_folder_that_can_t_be_written_is_told_before_anything_is_trained(
    charlstm: Callable[..., Result], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking(monkeypatch, lambda attempt: False)
    result = charlstm("train", text, "--steps", 30, *SMALL)
    assert result.status == 1
    assert "step 1" not in result.err


def test_what_a_killed_save_left_behind_is_removed_at_the_next_start(
    charlstm: Callable[..., Result], text: Path
) -> None:
    folder = Path("checkpoints")
    folder.mkdir()
    ours = [folder / ".verses.npz.123.tmp", folder / ".verses.best.npz.9.tmp"]
    others = [folder / ".verses2.npz.123.tmp", folder / ".verses.npz.txt"]
    for path in ours + others:
        path.touch()
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 0
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_what_was_left_behind_is_removed_where_there_is_nothing_left_to_train_too(
    charlstm: Callable[..., Result], text: Path
) -> None:
    assert charlstm("train", text, "--steps", 3, *SMALL).status == 0
    left = Path("checkpoints") / ".verses.npz.123.tmp"
    left.touch()
    again = charlstm("train", text, "--steps", 3, "--if-exists", "resume", *SMALL)
    assert again.status == 0
    assert "already at step 3" in again.err
    assert not left.exists()


def test_a_request_to_save_is_met_after_the_step(text: Path) -> None:
    run = begin(text, save_every_s=1000)
    saved = []
    for event in run.run():
        if isinstance(event, events.Progress) and event.step == 17:
            run.stop.save = True
        if isinstance(event, events.Saved) and not event.best:
            saved.append(event.step)
    assert saved == [0, 17, 40]


def test_who_reads_a_file_that_is_replaced_that_moment_sees_a_whole_one(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer file takes its place when it has just been looked at: no number of the one must be held against the other."""
    for _ in begin(text).run():
        pass
    path, longer = Path("checkpoints/verses.npz"), Path("longer.npz")
    run = checkpoint.load_run(path)
    run.history = run.history * 500
    checkpoint.save_run(longer, run)
    open_archive = zipfile.ZipFile

    def replace_and_open(*args: object) -> zipfile.ZipFile:
        longer.replace(path)
        return open_archive(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(zipfile, "ZipFile", replace_and_open)
    assert len(checkpoint.load(path).history) in (len(run.history), len(run.history) // 500)


def test_a_run_that_was_killed_after_its_last_step_is_judged_when_it_goes_on(
    charlstm: Callable[..., Result], text: Path
) -> None:
    for _ in begin(text).run():
        pass
    undisturbed = Path("checkpoints/verses.npz").read_bytes()
    for path in Path("checkpoints").glob("*"):
        path.unlink()
    run = begin(text, save_every_s=0)
    stream = run.run()
    for event in stream:
        if isinstance(event, events.Progress) and event.step == 40:
            break
    checkpoint.save_run(run.path, run.state)
    run.lock.release()
    assert charlstm("resume").status == 0
    assert Path("checkpoints/verses.npz").read_bytes() == undisturbed


def test_a_best_model_that_could_not_be_saved_is_saved_later_as_it_was(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(text)
    best = {name: p.copy() for name, p in run.state.averaged.items()}
    breaking(monkeypatch, lambda attempt: attempt > 1)
    (failed,) = run.saver.save_best({"step": 1, "steps": 2, "epoch": 0.0, "elapsed_s": 0.0})
    assert isinstance(failed, events.SaveFailed)
    for p in run.state.averaged.values():
        p += 1
    list(run.saver.save({"step": 2, "steps": 2, "epoch": 0.0, "elapsed_s": 0.0}))
    saved = checkpoint.load(run.saver.files.best).char_model.params
    assert all(np.array_equal(saved[name], p) for name, p in best.items())


def test_the_best_model_is_the_one_with_the_lowest_held_out_loss(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.2])
    monkeypatch.setattr(data_parallel, "evaluate", lambda *_: next(losses))
    for _ in begin(text).run():
        pass
    assert checkpoint.load(find_run("verses", Path("checkpoints"), best=True)).step == 20
    assert checkpoint.load(find_run("verses", Path("checkpoints"), best=False)).step == 40


# -- one writer


def test_a_second_writer_is_told_who_the_first_one_is(charlstm: Callable[..., Result], text: Path) -> None:
    run = begin(text)
    stream = run.run()
    next(stream)
    result = charlstm("train", text, "--steps", 50, "--if-exists", "overwrite", *SMALL)
    assert result.status == 1
    assert f"process {os.getpid()} on " in result.err
    for _ in stream:
        pass
    assert charlstm("resume", "verses", "--steps", 41).status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
@pytest.mark.parametrize(
    ("number", "exists"), [(3, True), pytest.param(10, False, marks=slow), pytest.param(10, True, marks=slow)]
)
def test_of_many_at_once_one_trains_and_the_others_leave_and_a_killed_one_holds_nothing(
    charlstm: Callable[..., Result], text: Path, number: int, exists: bool
) -> None:
    if exists:
        assert charlstm("train", text, "--steps", 3, *SMALL).status == 0
    command = [
        sys.executable, "-m", "charlstm", "train", str(text), "--if-exists", "resume", "--minutes", "10", "--display", "lines",
        *SMALL,
    ]  # fmt: skip
    runs = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(number)
    ]
    end = time.monotonic() + 60
    while sum(run.poll() is not None for run in runs) < number - 1 and time.monotonic() < end:
        time.sleep(0.05)
    left = [run for run in runs if run.poll() is not None]
    (trains,) = [run for run in runs if run.poll() is None]
    trains.send_signal(signal.SIGKILL)
    sentences = [run.communicate(timeout=10)[1].splitlines()[-1] for run in left]
    trains.communicate(timeout=10)
    assert [run.returncode for run in left] == [1] * (number - 1)
    assert all("is being trained by " in sentence for sentence in sentences), sentences
    assert any(f"process {trains.pid} on" in sentence for sentence in sentences)  # one may come before that was written
    assert checkpoint.load_run(Path("checkpoints/verses.npz")).config.batch == 4
    again = subprocess.run(
        [*command[:5], "--if-exists", "resume", "--steps", "1", "--display", "none"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_a_run_that_another_process_made_while_the_text_was_read_is_left_alone(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = Path("checkpoints/verses.npz"), corpus.read

    def read_slowly(*args: str) -> corpus.Corpus:
        path.parent.mkdir()
        path.write_bytes(b"of the other process")
        return read(*args)

    monkeypatch.setattr(corpus, "read", read_slowly)
    with pytest.raises(UsageError, match="already exists"):
        begin(text)
    assert path.read_bytes() == b"of the other process"
    assert trainer_of(path) is None


def test_whoever_asks_who_trains_a_run_keeps_nobody_from_training_it(folder: Path) -> None:
    path = folder / "x.npz"
    assert trainer_of(path) is None
    Lock(path).release()
    looking = os.open(folder / ".x.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.01, os.close, (looking,)).start()
    lock = Lock(path)
    assert trainer_of(path) == f"process {os.getpid()} on {socket.gethostname()}"
    lock.release()
    assert trainer_of(path) is None
