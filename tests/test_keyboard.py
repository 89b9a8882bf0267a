"""Keys typed while the Live screen is on: `q` stops, the others do nothing, and the terminal is as it was afterwards."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charlstm.display.keyboard import Keyboard
from tests.conftest import ROOT, SMALL, VERSES

TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
SCRIPT = """
stty -a > before
{python} -m charlstm train t.txt --minutes 10 {small} > out
echo "status $?"
stty -a > after
read -t 0.2 typed && echo "left over: $typed"
echo the end
"""


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="pseudo-terminals, bash")
def test_q_stops_as_ctrl_c_does_and_leaves_nothing_to_the_shell(folder: Path) -> None:
    (folder / "t.txt").write_text(VERSES * 20)
    script = SCRIPT.format(python=shlex.quote(sys.executable), small=shlex.join(SMALL[:-2]))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LINES": "24"}
    terminal, theirs = os.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, "bash", "--norc", "-c", script]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)  # type: ignore[call-overload]
    os.close(theirs)
    shown, typed, deadline = b"", False, time.monotonic() + 60
    while b"the end" not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the terminal is gone once the shell has ended
                break
        if not typed and b"it writes" in shown:
            os.write(terminal, b"echo typed\nqecho more\n")
            typed = True
    os.close(terminal)
    process.wait(30)
    told = shown.decode(errors="replace")
    assert "status 130" in told
    assert "q or Ctrl-C: save and stop" in told
    assert "t stopped by SIGINT after saving" in told
    assert "left over" not in told
    assert "echo typed" not in told, "what is typed is not echoed on the screen"
    assert (folder / "before").read_text() == (folder / "after").read_text()
    assert (folder / "out").read_text().endswith(".npz\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_terminal_that_is_not_ours_is_left_alone(folder: Path) -> None:
    """The terminal of another session, or of the foreground while this process is in the background."""
    import termios

    ours, theirs = os.openpty()
    with open(theirs) as stream, open(os.devnull) as nowhere:
        before = termios.tcgetattr(theirs)
        keyboard = Keyboard(stream)
        assert keyboard
        os.write(ours, b"q")
        keyboard.poll()
        assert termios.tcgetattr(theirs) == before
        keyboard.close()
        for none in (nowhere, None):
            assert not Keyboard(none)
            Keyboard(none).poll()
            Keyboard(none).close()
    os.close(ours)
