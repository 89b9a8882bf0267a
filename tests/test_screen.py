"""The Live screen: what it shows at every size, what no text can do to it, what it costs, and what it leaves behind."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from charlstm import events
from charlstm.display import cells, screen, widgets
from charlstm.display.live import LiveDisplay
from charlstm.display.select import open_display
from charlstm.display.view import RunView
from tests.conftest import SMALL, VERSES, Result, slow, spawn, sweep
from tests.experiments import screens
from tests.experiments.picture import picture

LEGIBLE = {0, 1, 2, 31, 32, 35, 36}
"""Default, bold, dim; red, green, magenta and cyan, which are neither lost on a light nor on a dark background."""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def run() -> RunView:
    """Where the story's run stands at its end."""
    standing = RunView()
    for event in screens.story():
        standing.take(event)
    return standing


def plain(run: RunView, columns: int, rows: int) -> str:
    return "\n".join(line.plain for line in screen.draw(run, columns, rows))


# -- what it shows


def test_the_screen_is_what_it_was_when_last_looked_at() -> None:
    kept = screens.KEPT.read_text(encoding="utf-8")
    assert screens.drawn(80, 24) == kept, "look at it; python -m tests.experiments.screens keeps it"


@slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize(("columns", "rows"), screens.SIZES)
def test_a_real_terminal_shows_what_was_laid_out(columns: int, rows: int) -> None:
    assert screens.shown(columns, rows) == screens.drawn(columns, rows)


@pytest.mark.parametrize("told", sweep([0, 1, 2, 1000, 10_000], 1, 10_000))
def test_the_screen_fits_at_every_size_and_moment(told: int) -> None:
    run = RunView()
    for event in list(screens.story())[:told]:
        run.take(event)
    for columns in (1, 2, 5, 20, 29, 30, 40, 59, 60, 79, 80, 99, 100, 119, 120, 200, 400):
        for rows in (1, 2, 3, 5, 8, 10, 12, 13, 15, 19, 20, 24, 50, 100):
            lines = screen.draw(run, columns, rows)
            assert len(lines) == rows, (columns, rows)
            for line in lines:
                assert "\n" not in line.plain
                assert max(cells.width(line.plain), cell_len(line.plain)) <= max(columns, 2), (columns, rows, line)


def test_what_matters_is_there_at_every_usual_size(run: RunView) -> None:
    for columns, rows in (*screens.SIZES, (40, 10)):
        told = plain(run, columns, rows)
        for word in ("40%", "1:20 gone, 2:00 left", "1.524", "5-gram 1.90", "it writes", "mouth wat▌"):
            assert word in told, (columns, rows, word)
    for columns, rows in screens.SIZES:
        told = plain(run, columns, rows)
        for word in ("gradient", "|c|", "weights", "update", "saturated", "steady", "rising", "training"):
            assert word in told, (columns, rows, word)


def test_the_prompt_is_told_from_what_was_written_without_colour(run: RunView) -> None:
    lines = plain(run, 120, 40).splitlines()
    assert any(line[60:].strip() == "> The Fox and the Grapes" for line in lines)
    run = RunView()
    run.take(events.Sampled(1, 2, 0.0, 0.0, " grapes were", True, "The fox said that the"))
    told = plain(run, 80, 24)
    assert "> The fox said that the\n" in told
    assert "\n… grapes were" in told


def test_a_sample_has_its_step_and_large_screens_keep_the_older_ones(run: RunView) -> None:
    for columns, rows in screens.SIZES:
        told = plain(run, columns, rows)
        assert "── it writes at step 1,200 ──" in told
        for step in screens.MOMENTS:
            assert (f"── step {step} ──" in told) == (rows >= 40), (columns, rows)
    for line in screen.draw(run, 120, 40)[-14:-1]:
        words = {k for k, c in enumerate(line.plain) if not c.isspace()}
        assert words <= {k for span in line.spans if span.style == "dim" for k in range(span.start, span.end)}


def test_large_screens_are_used_down_to_their_end() -> None:
    run = RunView()
    for step in range(1, 9):
        run.take(events.Sampled(step, 9, 0.0, 0.0, "a line of a sample that the model wrote\n" * 10, True, "prompt"))
    for columns, rows in ((80, 40), (120, 40), (160, 45), (200, 50)):
        lines = plain(run, columns, rows).splitlines()
        assert sum(not line.strip() for line in lines[-(rows // 3) :]) <= 1, (columns, rows)


def test_the_screen_says_how_to_stop() -> None:
    run = RunView()
    for columns, rows in (*screens.SIZES, (40, 12)):
        assert plain(run, columns, rows).splitlines()[-1].strip() == "Ctrl-C: save and stop"


def test_the_scale_ends_below_what_is_reached_and_not_far_below(run: RunView) -> None:
    """Of a run at 1.5 nats, where the hardest baseline is 1.9, more than a tenth and less than a quarter of the scale is left."""
    line = screen._scale(run, 100)[1].plain
    assert 75 <= line.index("o") < 90
    assert 75 <= line.index("x") < 95
    low = RunView()
    low.take(next(screens.story()))
    low.take(events.Evaluated(1, 2, 0.0, 0.0, 0.2, 0.3, 0.3, 1.4, 5))
    names, line = (text.plain for text in screen._scale(low, 100))
    assert names.endswith("0.00")
    assert 85 <= line.index("o") < 97


def test_a_run_without_validation_is_judged_by_its_training_loss() -> None:
    run = RunView()
    for event in screens.story():
        if not isinstance(event, events.Evaluated):
            run.take(event)
    for columns, rows in screens.SIZES:
        told = plain(run, columns, rows)
        assert "held out" not in told
        assert "x training" in told
    assert f"{3.06 - 1.348:.3f} below" in plain(run, 80, 24)


def test_trouble_is_told_at_every_size() -> None:
    for rows in (10, 15, 24):
        run = RunView()
        for event in screens.story():
            run.take(event)
        run.take(events.SaveFailed(1200, 3000, 14.0, 80.0, "the disk is full"))
        assert "not saved: the disk is full" in plain(run, 80, rows)
        run.take(events.Saved(1200, 3000, 14.0, 81.0, "p.npz", False))
        assert "the disk is full" not in plain(run, 80, rows)


# -- its parts


def test_large_digits_have_one_width_and_all_differ() -> None:
    rows = {n: widgets.large(n) for n in (0.0, 1.234, 5.678, 9.0, 12.34, 123.4, None)}
    assert all(len({len(row) for row in number}) == 1 and len(number) == widgets.DIGIT_ROWS for number in rows.values())
    assert len({tuple(widgets.DIGITS[c]) for c in widgets.DIGITS}) == len(widgets.DIGITS)


def test_the_scale_goes_from_chance_to_nothing() -> None:
    names, line = widgets.scale(101, 4.0, 0.0, [("half", 2.0), ("all", 4.0), ("", 0.0)], [("x", 3.0), ("o", 1.0)])
    assert (line[0], line[25], line[50], line[75], line[100]) == ("┿", "x", "┿", "o", "┼")
    assert line.count("━") == 75 - 3
    assert (names.find("half 2.00"), names.find("all 4.00"), names.rfind("0.00")) == (50, 0, 97)
    _, outside = widgets.scale(11, 4.0, 1.0, [], [("x", 99.0)])
    assert outside[0] == "x", "worse than chance is at its end"


def test_names_on_a_scale_never_run_into_each_other() -> None:
    for columns in range(1, 80):
        names, line = widgets.scale(columns, 4.0, 1.0, [("three", 3.0), ("nearly", 2.9), ("four", 4.0)], [])
        assert len(names) == len(line) == columns
        assert set(names.split()) <= {"three", "nearly", "four", "3.00", "2.90", "4.00"}


# -- what a text can't do


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\x1b[2J\x07\x9b", "a␛[2J␇<009B>"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
        ("\u202eevil", "<202E>evil"),
        ("漢字 한국어 \U0001f600", "漢字 한국어 \U0001f600"),
        ("e\u0301", "é"),
        ("q\u0301", "q\u0301"),
        ("\u0301 \u0301\n\u0301", "◌\u0301 ◌\u0301\n◌\u0301"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
        ("\U0001f44d\U0001f3fd \u2764\ufe0f 1\ufe0f\u20e3", "\U0001f44d \u2764 1"),
        ("\U0001f1e9\U0001f1ea", "DE"),
        ("a\u200bb\xad\ufeff", "ab"),
        ("\U000e0fff\ue000", "<E0FFF><E000>"),
    ],
)
def test_what_terminals_measure_differently_is_shown_in_a_safe_form(text: str, safe: str) -> None:
    assert cells.sanitize(text) == safe


@given(st.text(), st.integers(2, 40))
def test_any_text_becomes_lines_that_fit_and_lose_nothing(text: str, columns: int) -> None:
    safe = cells.sanitize(text)
    lines = cells.wrap(safe, columns)
    assert all(cells.width(line) <= columns for line in lines)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", safe)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cn", "Co", "Cs") for line in lines for c in line)
    assert cells.width(cells.fit(text, columns)) <= columns


def test_lines_break_between_words_where_they_can() -> None:
    assert cells.wrap("the cat sat on the mat", 8) == ["the cat", "sat on", "the mat"]
    assert cells.wrap("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert cells.wrap("漢字漢", 4) == ["漢字", "漢"]
    assert cells.wrap("a\tb\n\nc", 9) == ["a   b", "", "c"]


def test_nothing_the_run_is_called_or_writes_reaches_the_terminal_raw() -> None:
    stream = Terminal()
    display = screens.tell(stream)
    display.show(events.SaveFailed(1, 2, 0.0, 0.0, "bad\x1b]0;title\x07"))
    display.run.started = events.Started(**{**vars(next(screens.story())), "run": "evil\x1b[2Jname"})
    display.next_s = 0.0
    display._draw()
    display.show(events.Finished(1, 2, 0.0, 0.0, "p\x1b[5m.npz", 1.0, 1.0, "done"))
    for bad in ("\x1b]0;", "\x07", "\u202e", "\x9b", "\x1b[31mred", "\x1b[2Jname", "\x1b[5m"):
        assert bad not in stream.getvalue()
    assert "[bold]hanging[/bold]" in stream.getvalue()


# -- colours


def styles(written: str) -> list[list[int]]:
    return [[int(code or 0) for code in found.split(";")] for found in re.findall(r"\x1b\[([\d;]*)m", written)]


def test_only_colours_that_are_legible_on_light_and_dark_are_used_and_none_is_bold() -> None:
    stream = Terminal()
    screens.tell(stream)
    used = styles(stream.getvalue())
    assert {35, 36} <= {code for codes in used for code in codes} <= LEGIBLE
    assert not any({1, 2} & set(codes) and max(codes) > 2 for codes in used)


def test_there_is_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    screens.tell(stream)
    assert {code for codes in styles(stream.getvalue()) for code in codes} <= {0, 1, 2}


# -- what it costs


def progress(step: int) -> events.Progress:
    return events.Progress(step, 10**6, 0.0, 0.0, 3.0, 0.5, 1e-3, 30.0, 2.0, 0.1, 0.01, 8e4, 10.0)


def test_it_is_drawn_ten_times_a_second_at_most() -> None:
    clock = Clock()
    with LiveDisplay(Terminal(), clock) as display:
        for step in range(5000):
            clock.now = step * 0.001
            display.show(progress(step))
    assert 45 <= display.frames <= 51


def test_drawing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that took long is followed by a pause in proportion."""
    clock = Clock()
    drawing_s = 0.0

    def draw(*_: object) -> list[object]:
        nonlocal drawing_s
        clock.now += 0.05
        drawing_s += 0.05
        return []

    monkeypatch.setattr(screen, "draw", draw)
    with LiveDisplay(Terminal(), clock) as display:
        for step in range(20_000):
            clock.now += 0.01
            display.show(progress(step))
    assert display.frames > 10
    assert drawing_s / clock.now < 0.01


# -- what it does to the terminal


def test_a_resized_window_is_cleared_and_filled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = Terminal(), Clock()
    display = LiveDisplay(stream, clock)
    frames = []
    for columns, rows in ((80, 24), (80, 24), (120, 15), (40, 10)):
        clock.now += 1
        display.console = Console(file=stream, width=columns, height=rows, force_terminal=True)
        before = len(stream.getvalue())
        display.show(progress(1))
        frames.append(stream.getvalue()[before:])
    assert [frame.count("\x1b[2J") for frame in frames] == [1, 0, 1, 1]
    rows = [len(re.findall(r"\x1b\[\d+;1H", frame)) for frame in frames]
    assert (rows[0], rows[2], rows[3]) == (24, 15, 10)
    assert rows[1] < 8, "a frame of the same size writes what changed"


def test_the_terminal_is_given_back_before_an_error_is_told() -> None:
    stream = Terminal()

    def fail() -> None:
        with LiveDisplay(stream) as display:
            display.show(progress(1))
            raise ValueError("in mid-run")

    with pytest.raises(ValueError, match="in mid-run"):
        fail()
    assert stream.getvalue().endswith("\x1b[H\x1b[2J\x1b[?1049l\x1b[?25h")


class Gone(Terminal):
    """A terminal that hangs up after so many writes."""

    def __init__(self, file: TextIO, writes: int) -> None:
        super().__init__()
        self.fileno, self.writes = file.fileno, writes

    def write(self, text: str) -> int:
        self.writes -= 1
        if self.writes < 0:
            raise OSError(5, "Input/output error")
        return len(text)


@pytest.mark.parametrize("writes", sweep(range(8), 0, 1, 7))
def test_a_terminal_that_is_gone_does_not_end_the_training(folder: Path, writes: int) -> None:
    with open("stderr", "w") as file, open_display("live", io.StringIO(), Gone(file, writes)) as display:
        for event in screens.story():
            display.show(event)
        display.suspend()
        display.show(events.Finished(1, 2, 0.0, 0.0, "p.npz", 1.0, 1.0, "done"))
        assert display.lost


def test_the_summary_keeps_lines_of_the_last_sample() -> None:
    stream = Terminal()
    display = screens.tell(stream)
    display.show(events.Sampled(1300, 3000, 0.0, 80.0, "too short", True, "New\n"))
    display.show(events.Finished(1300, 3000, 0.0, 80.0, "p.npz", 1.4, 1.5, "done"))
    summary = stream.getvalue().rpartition("\x1b[?25h")[2].splitlines()
    assert "it wrote at step 1,200:" in summary[0]
    assert "> The Fox and the Grapes" in summary[1]
    assert 3 <= summary.index("") - 2 <= 5
    assert summary[2].strip().startswith("A Fox one day")


def test_a_run_that_stops_before_its_first_evaluation_has_a_loss() -> None:
    stream = Terminal()
    with LiveDisplay(stream) as display:
        display.show(progress(1))
        display.show(events.Finished(1, 9, 0.0, 1.0, "p.npz", None, None, "SIGINT"))
    assert "training loss 3.000 nats (4.328 bits), before the first evaluation" in stream.getvalue()
    stream = Terminal()
    with LiveDisplay(stream) as display:
        display.show(events.Finished(0, 9, 0.0, 1.0, "p.npz", None, None, "SIGINT"))
    assert "loss" not in stream.getvalue()


def test_a_run_with_nothing_to_do_opens_no_screen() -> None:
    stream = Terminal()
    with LiveDisplay(stream) as display:
        display.show(next(screens.story()))
        display.show(events.Finished(1, 1, 0.0, 0.0, "p.npz", 1.0, 1.0, "nothing to do"))
    assert "\x1b[?1049" not in stream.getvalue()
    assert "p.npz" in stream.getvalue()


def test_it_leaves_a_summary_with_commands_that_can_be_typed(
    folder: Path, text: Path, charlstm: Callable[..., Result]
) -> None:
    """They find the run, in whatever folder it is and whatever it is called."""
    assert charlstm("train", text, "--steps", 5, "--name", "my run", "--checkpoints", "else where", *SMALL).status == 0
    stream = Terminal()
    with LiveDisplay(stream) as display:
        about = {"run": "my run", "path": "else where/my run.npz"}
        display.show(events.Started(**{**vars(next(screens.story())), **about}))
        display.show(events.Diverged(2, 9, 0.0, 0.0, "the loss is no longer finite", 0.01))
        display.show(events.Recovered(2, 9, 0.0, 0.0, 0.005, 1))
        display.show(events.Finished(5, 9, 0.0, 65.0, "else where/my run.best.npz", 1.4, 1.5, "SIGINT", "hint", 1.9, 5))
    summary = stream.getvalue()
    for told in (
        "my run stopped by SIGINT after saving at step 5 in 1:05",
        "best held-out loss 1.500 nats (2.164 bits), 0.400 below the 5-gram's 1.900",
        "else where/my run.best.npz",
        "note: step 2: the loss is no longer finite; restored the last good weights, rate 0.005",
        "note: hint",
    ):
        assert told in summary
    commands = re.findall(r"charlstm (.*)", summary)
    assert [command.split()[0] for command in commands] == ["sample", "resume", "info"]
    for command in (commands[0], commands[2]):
        assert charlstm(*shlex.split(command)).status == 0
    assert charlstm(*shlex.split(commands[1].replace("--minutes 5", "--steps 6"))).status == 0


# -- a whole run


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize("interrupted", sweep([False, True], True))
def test_on_a_real_terminal_stdout_holds_the_path_alone(folder: Path, interrupted: bool) -> None:
    """stderr is a terminal and shows the screen; stdout is a file and gets the product; Ctrl-C ends as tidily as the end does."""
    import pty

    (folder / "t.txt").write_text(VERSES * 20)
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    length = ("--minutes", 10) if interrupted else ("--steps", 40)
    process = spawn("train", "t.txt", *length, *SMALL[:-2], cwd=folder, stderr=theirs, env=environment)
    os.close(theirs)
    shown, deadline = b"", time.monotonic() + 60
    try:
        while data := os.read(ours, 65536):
            shown += data
            if interrupted and b"it writes" in shown and process.poll() is None:
                process.send_signal(signal.SIGINT)
                interrupted = False
            assert time.monotonic() < deadline
    except OSError:  # the terminal is gone once the program has ended
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    how = "stopped by SIGINT after saving" if length[0] == "--minutes" else "finished"
    assert process.returncode == (130 if length[0] == "--minutes" else 0)
    assert out in (b"checkpoints/t.best.npz\n", b"checkpoints/t.npz\n")
    assert b"it writes" in shown
    screen_part, _, summary = shown.rpartition(b"\x1b[?1049l")
    assert screen_part.count(b"\x1b[?1049h") == 1
    assert b"\x1b[?25h" in summary, "the cursor is shown again"
    assert f"t {how} at step" in summary.decode()
    assert "Traceback" not in shown.decode()


def test_the_picture_of_the_readme_is_small_and_fetches_nothing(run: RunView) -> None:
    for svg in (picture(run), (screens.ROOT / "docs" / "screen.svg").read_text(encoding="utf-8")):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert len(svg) < 100_000
        assert not re.search(r"url\(.?http|@import|href=", svg)
        assert "held&#160;out" in svg
