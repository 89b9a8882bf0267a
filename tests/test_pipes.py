"""The program among others: pipes that close, disks that are full, signals, terminals that can show little. Real processes, all of them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, slow, spawn, sweep, wait_for

PROGRAM = f"{shlex.quote(sys.executable)} -m charlstm"
SEEDED = f"{PROGRAM} sample fables --seed 1 -q"
posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")


def has(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"no {tool} here")


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of shell; its own status and those of a pipe's parts are written by the line itself, where they matter."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


# -- pipes


@posix
@has("bash")
@pytest.mark.parametrize(
    "options",
    sweep(["--length 0", "-n 40 --length 3000", "--length 2000 --json", "--lines 3000"], "-n 40 --length 3000"),
)
def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, options: str) -> None:
    done = shell(f"{SEEDED} {options} | head -c 100; echo :${{PIPESTATUS[@]}}", folder)
    assert done.stderr == b""
    assert done.stdout.endswith(b":0 0\n")
    assert len(done.stdout) == 100 + len(":0 0\n")


@posix
@has("bash")
def test_a_conversation_whose_reader_has_enough_ends_quietly(folder: Path) -> None:
    done = shell(f"yes the | {SEEDED} -i | head -n 2 > /dev/null; echo ${{PIPESTATUS[1]}}", folder)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@slow
@posix
@has("bash")
def test_wc_counts_the_lines_that_were_asked_for(folder: Path) -> None:
    done = shell(f"{SEEDED} --lines 5 -n 3 --prompt 'The fox' | wc -l", folder)
    assert int(done.stdout) == 17  # an empty line between two texts


@posix
@has("bash")
def test_both_streams_in_one_pipe_hold_the_seed_and_the_text(folder: Path) -> None:
    done = shell(f"{PROGRAM} sample fables --length 40 2>&1 | cat", folder)
    assert done.stdout.startswith(b"from fables, step ")
    assert len(done.stdout.split(b"\n", 1)[1]) == 40


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words",
    sweep(
        ["sample --length 50", "sample --json --length 50", "eval fables p.txt", "eval fables p.txt --show"],
        "sample --length 50",
        "eval fables p.txt",
    ),
)
def test_a_full_disk_is_one_sentence_and_status_1(folder: Path, words: str) -> None:
    (folder / "p.txt").write_text("The fox and the hen.\n")
    with open("/dev/full", "w") as full:
        process = spawn(*words.split(), cwd=folder, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in err.splitlines() if not line.startswith(b"from ")] == [
        b"charlstm: standard output: No space left on device"
    ]


# -- signals


def begun(process: subprocess.Popen[bytes]) -> None:
    """Wait until it writes; the first byte is taken."""
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1)


@pytest.fixture(scope="module")
def beginning() -> bytes:
    """What `SEEDED` writes first."""
    out, _ = spawn("sample", "fables", "--length", 200, "--seed", 1).communicate(timeout=60)
    assert isinstance(out, bytes)
    return out


@posix
@pytest.mark.parametrize(
    ("number", "status", "options"),
    [
        (signal.SIGINT, 130, ()),
        (signal.SIGTERM, 143, ("-n", 20)),
        pytest.param(signal.SIGTERM, 143, (), marks=slow),
        pytest.param(getattr(signal, "SIGHUP", 1), 143, (), marks=slow),
    ],
)
def test_a_signal_ends_a_sample_at_once_and_what_was_written_stands(
    folder: Path, beginning: bytes, number: int, status: int, options: tuple[object, ...]
) -> None:
    process = spawn("sample", "fables", "--length", 2_000_000, "--seed", 1, "-q", *options, cwd=folder)
    begun(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, b"")
    assert len(out) < 2_000_000
    assert beginning[1:].startswith(out[:199])


@posix
def test_a_file_that_was_not_finished_is_not_left_behind(folder: Path) -> None:
    process = spawn("sample", "fables", "--length", 10_000_000, "--seed", 1, "-q", "--output", "today.txt", cwd=folder)
    wait_for(lambda: any(folder.iterdir()))
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, b"")
    assert list(folder.iterdir()) == []


@slow
@posix
@has("bash")
@has("timeout")
def test_a_time_limit_ends_it_quietly(folder: Path) -> None:
    done = shell(f"timeout 2 {SEEDED} --length 0 > out.txt; echo $?", folder)
    assert (done.stdout, done.stderr) == (b"124\n", b"")


@slow
@posix
@has("bash")
@has("nohup")
def test_nohup_keeps_it_going(folder: Path) -> None:
    command = (
        f"nohup {SEEDED} --length 9000 > out.txt & "
        "until [ -s out.txt ]; do sleep 0.02; done; kill -HUP $!; wait $!; echo $?"
    )
    done = shell(command, folder)
    assert done.stdout == b"0\n"
    assert b"Traceback" not in done.stderr
    assert (folder / "out.txt").stat().st_size == 9000


# -- terminals


class Terminal:
    """A program on a terminal of its own, and somebody who types when he has read what he waits for."""

    def __init__(self, words: list[str], folder: Path, **environment: str) -> None:
        import fcntl
        import pty
        import termios

        self.ours, theirs = pty.openpty()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **environment}
        self.process = subprocess.Popen(
            words, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.shown = b""

    def until(self, expected: bytes, typed: bytes = b"") -> None:
        """Read until it shows something, then type."""
        deadline = time.monotonic() + 60
        while expected not in self.shown:
            assert time.monotonic() < deadline, (
                f"it shows no {expected!r} in a minute, but ends with {self.shown[-200:]!r}"
            )
            self.shown += self._read()
        self.shown = self.shown.split(expected, 1)[1]
        os.write(self.ours, typed)

    def _read(self) -> bytes:
        assert select.select([self.ours], [], [], 60)[0], f"it shows nothing more than {self.shown!r}"
        data = os.read(self.ours, 4096)
        assert data, self.shown
        return data

    def status(self, pressed: bytes = b"") -> int:
        """Read to the end, and press a key again and again until it comes.

        Python loses a Ctrl-C between readline's prompt and its wait for a key, which no person is quick enough for.
        """
        deadline = time.monotonic() + 60
        with contextlib.suppress(OSError):  # what Linux says when nobody is left at the other end
            while True:
                assert time.monotonic() < deadline, f"it does not end, but shows {self.shown[-200:]!r}"
                if not select.select([self.ours], [], [], 1)[0]:
                    os.write(self.ours, pressed)
                elif data := os.read(self.ours, 4096):
                    self.shown += data
                else:
                    break
        os.close(self.ours)
        return self.process.wait(timeout=60)

    def __del__(self) -> None:
        self.process.kill()
        self.process.wait()


def converse(folder: Path, *words: object, **environment: str) -> Terminal:
    command = [sys.executable, "-m", "charlstm", "sample", "fables", "-i", "--seed", "1", *map(str, words)]
    return Terminal(command, folder, **environment)


@posix
@has("script")
def test_on_a_terminal_the_text_ends_with_a_line_end(folder: Path) -> None:
    done = shell(f"script -qec {shlex.quote(f'{SEEDED} --length 30')} /dev/null", folder)
    assert done.returncode == 0
    assert done.stdout.endswith(b"\r\n")
    assert b"\x1b" not in done.stdout


@slow
@posix
@has("bash")
@has("less")
def test_a_pager_that_is_left_ends_it_quietly(folder: Path) -> None:
    line = Terminal(["bash", "-c", f"{SEEDED} --length 0 | less; echo status ${{PIPESTATUS[0]}}"], folder, LESS="")
    line.until(b"The week", b"q")
    assert line.status() == 0
    assert b"status 0" in line.shown
    assert b"Traceback" not in line.shown


@posix
def test_a_conversation_on_a_terminal_asks_and_tells_what_was_typed_apart(folder: Path) -> None:
    talk = converse(folder, "--length", 20)
    talk.until(b"Ctrl-D exits")
    talk.until(b"> ", b"The fox\n")
    talk.until(b"\x1b[1mThe fox\x1b[0m")
    talk.until(b"> ", b"\x04")
    assert talk.status() == 0
    plain = converse(folder, "--length", 20, TERM="dumb")
    plain.until(b"> ", b"The fox\n")
    plain.until(b"The fox\r\n")
    while b"> " not in plain.shown:
        plain.shown += plain._read()
    assert plain.shown.startswith(b"The fox")
    plain.until(b"> ", b"\x04")
    assert plain.status() == 0


@posix
@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="Ctrl-C in input() may be a SystemError of Python 3.10 itself: a result with an exception set",
)
def test_ctrl_c_on_a_terminal_stops_the_text_then_leaves_the_conversation(folder: Path) -> None:
    talk = converse(folder, "--length", 0)
    talk.until(b"> ", b"The fox\n")
    talk.until(b"\x1b[1mThe fox\x1b[0m", b"\x03")
    talk.until(b"> ", b"\x03")
    assert talk.status(b"\x03") == 130, talk.shown
    assert b"Traceback" not in talk.shown


STRANGE = "naïve ☃ – über\n"


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of characters that few terminals have."""
    folder = tmp_path_factory.mktemp("strange")
    (folder / "strange.txt").write_text(STRANGE * 60, encoding="utf-8")
    process = spawn("train", "strange.txt", "--steps", 2, "--hidden", 8, "--batch", 4, "--seq", 10, cwd=folder)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return folder


def told(folder: Path, *words: object, typed: bytes = b"", status: int = 0, **environment: str) -> bytes:
    process = spawn(*words, cwd=folder, env=environment, stdin=subprocess.PIPE)
    out, err = process.communicate(typed, timeout=60)
    assert process.returncode == status, err
    assert b"Traceback" not in err
    return bytes(out)


@pytest.mark.parametrize(
    ("encoding", "environment"),
    [
        ("cp1252", {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}),
        pytest.param("ascii", {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, marks=slow),
        pytest.param("utf-8", {"LANG": "C", "LC_ALL": "C"}, marks=slow),
        pytest.param("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, marks=slow),
    ],
)
def test_a_terminal_gets_what_it_can_show_and_a_replacement_for_the_rest(
    strange: Path, encoding: str, environment: dict[str, str]
) -> None:
    text = told(strange, "sample", "--length", 200, "--seed", 1, **environment).decode(encoding)
    assert len(text) == 200
    assert ("?" in text) == (encoding != "utf-8")
    assert ("ï" in text) == (encoding != "ascii")
    talk = told(strange, "sample", "-i", "--seed", 1, typed="ü☃\n".encode(), **environment).decode(encoding)
    assert talk.startswith("ü☃".encode(encoding, "replace").decode(encoding))


@slow
def test_an_ascii_terminal_gets_colours_json_and_errors(strange: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    told(strange, "eval", "strange", "strange.txt", "--show", **environment).decode("ascii")
    assert set(json.loads(told(strange, "sample", "--json", "--seed", 1, **environment))["text"]) <= set(STRANGE)
    told(strange, "sample", "--prompt", "ж", status=2, **environment)


@posix
@has("bash")
@pytest.mark.parametrize("closed", sweep(["<&-", "2>&-"], "2>&-"))
def test_a_closed_stream_is_no_traceback(folder: Path, closed: str) -> None:
    done = shell(f"{SEEDED} --length 20 {closed}", folder)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 20, b"")
