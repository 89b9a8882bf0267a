"""Displays: what they write, where, and what a text can't do to them."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from charlstm import events
from charlstm.display import choose_kind, curve, open_display, words
from charlstm.display.live import LiveDisplay
from tests.conftest import SMALL, VERSES, spawn

NASTY = "[bold]not bold[/bold] \x1b[31mred\x1b]0;title\x07 \u202eevil 漢字 e\u0301 \U0001f468\u200d\U0001f469\ttab\n"
STARTED = events.Started(
    0, 100, 0.0, 0.0, run="r[red]un", path="p.npz", resumed=False, text="t.txt", chars=1000, val_chars=100, vocabulary=26,
    hidden=8, layers=1, parameters=999, memory_bytes=10**8, batch=4, seq=10, optimizer="adam", lr=0.01, clip=1.0, chance_nats=3.258, letters_nats=2.8,
    val_nats=None, best_val_nats=None, notes=("made to fit",),
)  # fmt: skip


def progress(step: int) -> events.Progress:
    return events.Progress(step, 100, step / 10, step * 0.5, 3.0 / step, 0.5, 1e-3, 30.0, 2.0, 0.1, 0.01, 8e4, 10.0)


def story() -> list[events.Event]:
    return [
        STARTED,
        events.Planned(1, 100, 0.1, 1.0, 60.0, "100 steps"),
        *(progress(step) for step in range(1, 60)),
        events.Sampled(60, 100, 6.0, 30.0, NASTY, True),
        events.Evaluated(60, 100, 6.0, 30.0, 2.0, 2.1, 2.1),
        events.Diverged(61, 100, 6.1, 30.5, "the loss is no longer finite", 0.01),
        events.Recovered(61, 100, 6.1, 30.5, 0.005, 1),
        events.Saved(62, 100, 6.2, 31.0, "p.npz", False),
        events.Finished(100, 100, 10.0, 50.0, "p.best.npz", 1.5, 2.1, "done"),
    ]


@pytest.mark.parametrize("kind", ["lines", "bar", "json", "none"])
def test_off_a_terminal_nothing_that_could_drive_one_is_written(kind: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with open_display(kind, out, err) as display:  # type: ignore[arg-type]
        for event in story():
            display.show(event)
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert "\u202e" not in out.getvalue() + err.getvalue()
    assert (out.getvalue() != "") == (kind == "json")
    assert (err.getvalue() != "") == (kind in ("lines", "bar"))


def test_lines_tell_what_happened() -> None:
    err = io.StringIO()
    with open_display("lines", io.StringIO(), err) as display:
        for event in story():
            display.show(event)
    told = err.getvalue()
    for word in (
        "1,000 characters",
        "made to fit",
        "held-out loss 2.100 nats (3.030 bits)",
        "diverged",
        "recovery 1",
        "p.best.npz",
    ):
        assert word in told
    assert len(told.splitlines()) < 25


def test_json_writes_null_for_what_is_not_finite() -> None:
    out = io.StringIO()
    with open_display("json", out, io.StringIO()) as display:
        display.show(events.Diverged(1, None, 0.0, 0.0, "loss", float("nan")))
    assert json.loads(out.getvalue())["lr"] is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [30, 60, 80, 120, 200])
@pytest.mark.parametrize("rows", [8, 15, 24, 50])
def test_the_live_screen_fits_and_a_sample_cannot_drive_it(
    columns: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("COLUMNS", columns), ("LINES", rows), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, str(value))
    stream = Terminal()
    with LiveDisplay(stream) as display:
        for event in story()[:-1]:
            display.next_s = 0.0
            display.show(event)
        shown = display.console.render_lines(display._screen(), display.console.options)
        assert len(shown) <= rows
        assert all(sum(segment.cell_length for segment in line) <= columns for line in shown)
        text = "\n".join("".join(segment.text for segment in line) for line in shown)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[bold]" in text or rows < 15
    assert "\x1b]0;" not in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_the_live_screen_leaves_a_summary_and_no_colour_if_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with LiveDisplay(stream) as display:
        for event in story():
            display.show(event)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", stream.getvalue())
    tail = stream.getvalue().splitlines()[-3:]
    assert "p.best.npz" in tail[0]
    assert "charlstm sample" in tail[1]


def test_drawing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that took long is followed by a pause in proportion."""
    clock = iter([0.0, 0.05, 1.0, 100.0, 100.001])
    monkeypatch.setattr("charlstm.display.live.time.monotonic", lambda: next(clock))
    display = LiveDisplay(Terminal())
    monkeypatch.setattr(display.live, "update", lambda *_, **__: None)
    display._draw()
    assert display.next_s == pytest.approx(0.05 + 0.05 / 0.008)
    display._draw()  # at 1.0: too soon
    display._draw()
    assert display.next_s == pytest.approx(100.126)


def test_auto_is_live_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert choose_kind("auto", Terminal()) == "live"
    assert choose_kind("auto", io.StringIO()) == "lines"
    assert choose_kind("bar", Terminal()) == "bar"
    monkeypatch.setenv("TERM", "dumb")
    assert choose_kind("auto", Terminal()) == "lines"


def test_control_characters_become_visible() -> None:
    assert words.visible("a\x1b[31m\0\x7f\x9b\n\t") == "a\u241b[31m\u2400\u2421<009B>\n\t"
    assert words.visible("\u202eabc\u2066") == "<202E>abc<2066>"
    assert words.visible("漢字 é \U0001f600") == "漢字 é \U0001f600"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (None, "?"), (float("inf"), "?")]
)
def test_durations(seconds: float | None, told: str) -> None:
    assert words.duration(seconds) == told


def test_counts() -> None:
    assert [words.count(n) for n in (0, 950, 1234, 81000, 1_300_000)] == ["0", "950", "1.2k", "81k", "1.3M"]


def test_a_curve_goes_from_the_top_left_to_the_bottom_right() -> None:
    rows = curve.draw([(x, 10 - x) for x in range(11)], [], 10, 4, 0, 10, 10)
    assert [len(row) for row in rows] == [10] * 4
    assert rows[0][0] != "\u2800" == rows[0][-1]
    assert rows[-1][-1] != "\u2800" == rows[-1][0]


def test_thinning_keeps_the_ends_near_and_the_number_small() -> None:
    thin = curve.thin([(float(x), float(x)) for x in range(1000)], 100)
    assert 50 <= len(thin) <= 100
    assert thin[0][0] < 20
    assert thin[-1][0] > 970


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_on_a_real_terminal_stdout_holds_the_path_alone(folder: Path) -> None:
    """stderr is a terminal and shows the screen; stdout is a file and gets the product."""
    (folder / "t.txt").write_text(VERSES * 20)
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = spawn("train", "t.txt", "--steps", 40, *SMALL[:-2], cwd=folder, stderr=theirs, env=environment)
    os.close(theirs)
    screen = b""
    try:
        while data := os.read(ours, 65536):
            screen += data
    except OSError:  # the terminal is gone once the program has ended
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == b"checkpoints/t.best.npz\n"
    assert b"it writes" in screen
    assert b"\x1b[?25h" in screen, "the cursor is shown again"
