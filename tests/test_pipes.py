"""The program among others: pipes that close, disks that are full, signals, terminals that can show little. Real processes, all of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, spawn

PROGRAM = f"{shlex.quote(sys.executable)} -m charlstm"
SEEDED = f"{PROGRAM} sample fables --seed 1"
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
    ["--length 0", "--length 0 -n 1 --temp 0.5", "-n 40 --length 3000", "--length 50000 --json", "--lines 3000"],
)
def test_a_reader_that_has_enough_ends_it_quietly(folder: Path, options: str) -> None:
    done = shell(f"{SEEDED} {options} | head -c 100; echo; echo ${{PIPESTATUS[@]}}", folder)
    assert done.stderr == b""
    assert done.stdout.endswith(b"\n0 0\n")
    assert len(done.stdout) == 100 + len("\n0 0\n")


@posix
@has("bash")
def test_a_conversation_whose_reader_has_enough_ends_quietly(folder: Path) -> None:
    done = shell(f"yes the | {SEEDED} -i | head -n 2 > /dev/null; echo ${{PIPESTATUS[1]}}", folder)
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@posix
@has("bash")
@pytest.mark.parametrize(("lines", "count"), [(1, 1), (5, 1), (5, 3), (2, 20)])
def test_wc_counts_the_lines_that_were_asked_for(folder: Path, lines: int, count: int) -> None:
    done = shell(f"{SEEDED} --lines {lines} -n {count} --prompt 'The fox' | wc -l", folder)
    assert int(done.stdout) == lines * count


@posix
@has("bash")
def test_both_streams_in_one_pipe_hold_the_seed_and_the_text(folder: Path) -> None:
    done = shell(f"{PROGRAM} sample fables --length 40 2>&1 | cat", folder)
    assert done.stdout.startswith(b"seed ")
    assert len(done.stdout.split(b"\n", 1)[1]) == 40


@posix
@has("bash")
@has("less")
@has("script")
def test_a_pager_that_is_left_ends_it_quietly(folder: Path) -> None:
    inner = f"{SEEDED} --length 0 | less; echo status ${{PIPESTATUS[0]}}"
    command = (
        f"(sleep 3; printf q; sleep 1; printf q) | script -qec {shlex.quote('bash -c ' + shlex.quote(inner))} /dev/null"
    )
    done = shell(command, folder, TERM="xterm", LESS="")
    assert b"status 0" in done.stdout
    assert b"Traceback" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "words",
    [
        "sample --length 50",
        "sample --json",
        "sample -n 20",
        "eval fables p.txt",
        "eval fables p.txt --json",
        "eval fables p.txt --show",
    ],
)
def test_a_full_disk_is_one_sentence_and_status_1(folder: Path, words: str) -> None:
    (folder / "p.txt").write_text("The fox and the hen.\n")
    with open("/dev/full", "w") as full:
        process = spawn(*words.split(), cwd=folder, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in err.splitlines() if not line.startswith(b"seed ")] == [
        b"charlstm: standard output: No space left on device"
    ]


# -- signals


def begun(process: subprocess.Popen[bytes]) -> None:
    """Wait until it writes."""
    assert process.stdout is not None
    assert process.stdout.read(1)


@posix
@pytest.mark.parametrize("options", [(), ("-n", 20)])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 1), 143)]
)
def test_a_signal_ends_a_sample_at_once_and_what_was_written_stands(
    folder: Path, number: int, status: int, options: tuple[object, ...]
) -> None:
    process = spawn("sample", "fables", "--length", 2_000_000, "--seed", 1, *options, cwd=folder)
    begun(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, b"")
    assert len(out) < 2_000_000
    whole = spawn("sample", "fables", "--length", len(out) + 1, "--seed", 1, cwd=folder).communicate(timeout=60)[0]
    assert whole[1:] == out


@posix
def test_a_file_that_was_not_finished_is_not_left_behind(folder: Path) -> None:
    process = spawn("sample", "fables", "--length", 10_000_000, "--seed", 1, "--output", "today.txt", cwd=folder)
    until = time.monotonic() + 30
    while not list(folder.iterdir()):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, b"")
    assert list(folder.iterdir()) == []


@posix
@has("bash")
@has("timeout")
def test_a_time_limit_ends_it_quietly(folder: Path) -> None:
    done = shell(f"timeout 3 {SEEDED} --length 0 > out.txt; echo $?", folder)
    assert (done.stdout, done.stderr) == (b"124\n", b"")
    assert (folder / "out.txt").stat().st_size > 0


@posix
@has("bash")
@has("nohup")
def test_nohup_keeps_it_going(folder: Path) -> None:
    command = f"nohup {SEEDED} --length 4000 > out.txt & sleep 1; kill -HUP $!; wait $!; echo $?"
    done = shell(command, folder)
    assert done.stdout == b"0\n"
    assert b"Traceback" not in done.stderr
    assert (folder / "out.txt").stat().st_size == 4000


# -- terminals


@posix
@has("script")
def test_on_a_terminal_the_text_ends_with_a_line_end(folder: Path) -> None:
    done = shell(f"script -qec {shlex.quote(f'{SEEDED} --length 30')} /dev/null", folder)
    assert done.returncode == 0
    assert done.stdout.endswith(b"\r\n")
    assert b"\x1b" not in done.stdout


@posix
@has("script")
def test_a_conversation_on_a_terminal_asks_and_tells_what_was_typed_apart(folder: Path) -> None:
    typed = "(sleep 2; echo The fox; sleep 1; printf '\\004'; sleep 1)"
    command = f"{typed} | script -qec {shlex.quote(f'{SEEDED} -i --length 20')} /dev/null"
    out = shell(command, folder, TERM="xterm").stdout
    assert b"Ctrl-D leaves" in out
    assert b"> " in out
    assert b"\x1b[1mThe fox\x1b[0m" in out
    plain = shell(command, folder, TERM="xterm", NO_COLOR="1").stdout
    assert b"\x1b[1m" not in plain
    assert b"The fox" in plain


@posix
@has("script")
def test_ctrl_c_on_a_terminal_stops_the_text_then_leaves_the_conversation(folder: Path) -> None:
    typed = "(sleep 2; echo The fox; sleep 1; printf '\\003'; sleep 1; printf '\\003'; sleep 1)"
    inner = f"{SEEDED} -i --length 0; echo status $?"
    out = shell(f"{typed} | script -qec {shlex.quote(inner)} /dev/null", folder, TERM="xterm").stdout
    assert b"Traceback" not in out
    assert b"status 130" in out
    assert out.count(b"> ") >= 2


STRANGE = "naïve ☃ – über\n"


@pytest.fixture
def run(folder: Path) -> Path:
    """A model of characters that few terminals have."""
    (folder / "strange.txt").write_text(STRANGE * 60, encoding="utf-8")
    process = spawn("train", "strange.txt", "--steps", 2, "--hidden", 8, "--batch", 4, "--seq", 10, cwd=folder)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_terminal_gets_what_it_can_show_and_a_replacement_for_the_rest(
    run: Path, environment: dict[str, str]
) -> None:
    commands: list[tuple[tuple[object, ...], bytes]] = [
        (("sample", "--length", 200, "--seed", 1), b""),
        (("sample", "--length", 200, "--seed", 1, "-n", 2, "--prompt", "ab☃c", "--unknown", "skip"), b""),
        (("sample", "--json", "--length", 20, "--seed", 1), b""),
        (("sample", "-i", "--seed", 1), "☃ é\n".encode()),
        (("eval", "strange", "strange.txt", "--show"), b""),
        (("sample", "--prompt", "ж"), b""),
    ]
    for words, typed in commands:
        process = spawn(*words, cwd=run, env=environment, stdin=subprocess.PIPE)
        out, err = process.communicate(typed, timeout=60)
        assert process.returncode == (2 if "ж" in words else 0), err
        assert b"Traceback" not in err
        encoding = environment.get("PYTHONIOENCODING", "utf-8")
        out.decode(encoding)
        if words == commands[0][0]:
            assert len(out.decode(encoding)) == 200
            assert ("?" in out.decode(encoding)) == (encoding != "utf-8" or "PYTHONCOERCECLOCALE" in environment)


def test_closed_streams_are_no_traceback(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for streams, status in (("<&-", 0), ("2>&-", 0)):
            done = shell(f"{SEEDED} --length 20 {streams}", folder)
            assert (done.returncode, len(done.stdout)) == (status, 20)
