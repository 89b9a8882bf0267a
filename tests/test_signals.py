"""Real signals to real processes: what is saved, with which status it ends, and that a clock that was stopped does not lie."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charlstm.nn.threads import ThreadPool
from charlstm.storage import checkpoint
from charlstm.training.control import Clock
from tests.conftest import SMALL, Result, slow, spawn, sweep, wait_for

pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]

PATH = Path("checkpoints/verses.npz")
STOPPED_S, BUDGET_S = 2.0, 4.8
SLOW = ("--hidden", "800", "--batch", "64", "--seq", "1000", "--preview-every", "0")
"""A model so slow that a step of it takes seconds."""


def begun(*words: object, **more: Any) -> subprocess.Popen[bytes]:
    """A training process that has saved once."""
    process = spawn("train", "verses.txt", *words, **more)
    wait_for(PATH.exists)
    return process


def told(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# -- stopped, and on again


def wait_until_stopped(pid: int) -> None:
    """Ctrl-Z is heeded after the step, which takes longer on a busy machine."""
    status = Path(f"/proc/{pid}/stat")
    deadline = time.monotonic() + 30
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it does not stop"
        time.sleep(0.01)


@slow
def test_the_seconds_that_a_process_was_stopped_are_not_told(text: Path) -> None:
    began = time.monotonic()
    process = begun("--minutes", 10, "--save-every", 0, "--display", "json", *SMALL, preexec_fn=os.setpgrp)
    wait_for(lambda: checkpoint.load_run(PATH).step > 0)
    process.send_signal(signal.SIGTSTP)
    wait_until_stopped(process.pid)
    time.sleep(1)  # the one thing that is to be left out
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert told(out)[-1]["elapsed_s"] < time.monotonic() - began - 1


@slow
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_the_time_that_a_process_was_stopped_is_not_time_that_it_trained(text: Path, number: int) -> None:
    """Neither is it told, nor is a budget of minutes spent by it, nor is the pace spoilt."""
    began = time.monotonic()
    # A group of its own, as a shell gives it: the system stops none that has nobody of its session outside to wake it, as under cron.
    process = begun("--minutes", BUDGET_S / 60, "--display", "json", *SMALL, preexec_fn=os.setpgrp)
    time.sleep(1)
    process.send_signal(number)
    wait_until_stopped(process.pid)
    time.sleep(STOPPED_S)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=30)
    gone_s, events = time.monotonic() - began, told(out)
    assert process.returncode == 0, err
    assert events[-1]["event"] == "finished"
    assert 0.4 * BUDGET_S < events[-1]["elapsed_s"] < BUDGET_S + 0.7 * STOPPED_S  # a busy machine changes its pace
    assert gone_s > events[-1]["elapsed_s"] + STOPPED_S * 0.9
    progress = [event for event in events if event["event"] == "progress"]
    assert all(event["remaining_s"] < 10 for event in progress if event["remaining_s"] is not None)
    paces = sorted(event["chars_per_s"] for event in progress)
    assert paces[0] > paces[-1] / 50


def test_the_clock_leaves_out_what_has_gone_since_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 101.0, 150.0, 151.0, 152.0])
    monkeypatch.setattr("charlstm.training.control.time.monotonic", lambda: next(now))
    clock = Clock()
    assert clock() == 101
    clock.resume()  # at 150
    assert (clock(), clock()) == (102, 103)


def test_only_the_main_thread_is_sent_signals() -> None:
    """Another one that is sent SIGCONT may not tell the main thread before that has read the clock."""
    with ThreadPool(2) as pool:
        main, other = pool.map(lambda _: signal.pthread_sigmask(signal.SIG_BLOCK, []), 2)
    assert {signal.SIGCONT, signal.SIGTERM, signal.SIGINT} <= other - main


# -- an end


def test_an_alarm_that_was_set_before_ends_it(folder: Path) -> None:
    """As `alarm` in Perl does, where there is no `timeout`."""
    process = spawn("sample", "fables", "-i", cwd=folder, stdin=subprocess.PIPE, preexec_fn=lambda: signal.alarm(2))
    assert process.wait(timeout=60) == -signal.SIGALRM
    process.communicate()


@pytest.mark.parametrize("number", sweep([signal.SIGINT, signal.SIGTERM], signal.SIGINT))
def test_before_there_is_anything_to_save_the_first_signal_ends_it_at_once(folder: Path, number: int) -> None:
    os.mkfifo("pipe")
    process = spawn("train", "pipe", "--steps", 5, cwd=folder)
    writers: list[int] = []

    def reads() -> bool:
        with contextlib.suppress(OSError):  # as long as nobody reads it
            writers.append(os.open("pipe", os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    wait_for(reads)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    os.close(writers[0])
    assert (process.returncode, err) == (128 + number, b"")


def test_ctrl_c_while_the_program_itself_is_loaded_is_no_traceback(folder: Path) -> None:
    (folder / "typer.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
    )  # found before the real one
    process = spawn("sample", cwd=folder)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_second_sigint_ends_it_at_once_and_the_last_save_stands(text: Path) -> None:
    process = begun("--steps", 5, *SLOW)
    before = PATH.read_bytes()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # two that come at once are one
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert PATH.read_bytes() == before
    assert checkpoint.load_run(PATH).step == 0


def saved_now(process: subprocess.Popen[bytes]) -> bool:
    """Ask it to save, and see whether it has."""
    process.send_signal(signal.SIGUSR1)
    return checkpoint.load_run(PATH).step > 0


def test_sigusr1_saves_now(text: Path) -> None:
    process = begun("--steps", 100_000, *SMALL)
    wait_for(lambda: saved_now(process))
    process.kill()
    process.communicate()


def test_what_nohup_ignores_is_ignored(text: Path) -> None:
    process = begun(
        "--steps", 100_000, *SMALL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )  # fmt: skip
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: saved_now(process))
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


# -- streams that go away, or were never there


@slow
def test_training_goes_on_where_nobody_reads_its_log_any_more(text: Path) -> None:
    process = begun("--steps", 300, "--eval-every", 5, *SMALL)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=30) == 0
    assert checkpoint.load_run(PATH).step == 300
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == b"checkpoints/verses.best.npz\n"


def test_training_ends_quietly_and_saved_where_nobody_reads_its_events_any_more(text: Path) -> None:
    process = begun("--steps", 1_000_000, "--eval-every", 5, "--display", "json", *SMALL)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 0
    assert checkpoint.load_run(PATH).step > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_on_a_full_disk_does_not_end_a_run(text: Path) -> None:
    with open("/dev/full", "w") as full:
        process = spawn("train", text, "--steps", 20, *SMALL, stderr=full)
        assert process.wait(timeout=30) == 0
    process.communicate()
    assert checkpoint.load_run(PATH).step == 20


@pytest.mark.parametrize(
    ("words", "closed", "status"),
    [
        ("train verses.txt --steps 3", "2>&-", 0),
        ("train verses.txt --steps 3 --display json", ">&-", 1),
        ("train -", "<&-", 2),
        ("sample fables --length 9", ">&-", 1),
        *(
            pytest.param(*it, marks=slow)
            for it in [
                ("train verses.txt --steps 3", "<&- >&- 2>&-", 0),
                ("train verses.txt --steps 3", ">&-", 0),
                ("train verses.txt --steps 3 --display live", "2>&-", 0),
                ("train verses.txt --steps 3 --display bar", "2>&-", 0),
                ("train nowhere.txt", "2>&-", 2),
                ("sample fables --length 9 --output x.txt", ">&- 2>&-", 0),
                ("sample fables --prompt -", "<&-", 2),
                ("info fables", ">&-", 1),
                ("eval fables verses.txt", ">&-", 1),
                ("--help", ">&-", 0),
                ("--version", ">&-", 0),
            ]
        ),
    ],
)
def test_a_stream_that_came_closed_is_no_traceback(text: Path, words: str, closed: str, status: int) -> None:
    options = " ".join(SMALL) if "train verses" in words else ""
    command = f"exec {sys.executable} -m charlstm {words} {options} {closed}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    if status and "2>&-" not in closed:
        assert done.stderr.startswith(b"charlstm: ")
    if "train verses" in words and status == 0:
        assert checkpoint.load_run(PATH).step == 3


# -- a terminal


def test_what_would_drive_a_terminal_is_visible_there_and_untouched_in_a_pipe(
    charlstm: Callable[..., Result], folder: Path
) -> None:
    import pty

    nasty = "\x1b]0;t\x07\x9b2J\u202eabc\u2066\u200f\x7f\x00\u2028\n"
    (folder / "nasty.txt").write_text(nasty * 40, encoding="utf-8")
    assert charlstm("train", "nasty.txt", "--steps", 2, *SMALL).status == 0
    options = ("sample", "nasty", "--temp", 3, "--length", 300, "--seed", 1)
    piped = charlstm(*options).out
    dangerous = set("\x1b\x07\x9b\u202e\u2066\u200f\x7f\x00\u2028")
    assert dangerous <= set(piped)
    leader, follower = pty.openpty()
    process = spawn(*options, stdout=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 65536)
        except OSError:  # how Linux says that the other side was closed
            break
    os.close(leader)
    assert process.wait(timeout=20) == 0
    process.communicate()
    text = shown.decode()
    assert not dangerous & set(text)
    assert "\u241b" in text
    assert "<202E>" in text
    assert "<009B>" in text


def test_a_screen_gives_the_terminal_back_while_it_is_stopped_and_takes_it_again(text: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    process = spawn(
        "train", text, "--minutes", 1, "--display", "live", *SMALL, stderr=follower, preexec_fn=os.setpgrp,
        env={"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )  # fmt: skip
    os.close(follower)
    seen = bytearray()

    def shown(mark: bytes) -> bool:
        seen.extend(os.read(leader, 65536))
        return mark in seen

    wait_for(lambda: shown(b"chance"))
    process.send_signal(signal.SIGTSTP)
    wait_for(lambda: shown(b"\x1b[?25h"))  # the cursor is back
    wait_until_stopped(process.pid)
    seen.clear()
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: shown(b"\x1b[?25l") and shown(b"chance"))
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(OSError):
        while os.read(leader, 65536):
            pass
    os.close(leader)
    assert process.wait(timeout=20) == 143
    process.communicate()
