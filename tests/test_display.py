"""Displays: what they write, where, and what a text can't do to them."""

from __future__ import annotations

import io
import json
import os
from datetime import datetime, timedelta, timezone

import pytest

from charlstm import events
from charlstm.display import curve, formatting
from charlstm.display.jsonl import JsonDisplay
from charlstm.display.select import choose_kind, open_display

NASTY = "[bold]not bold[/bold] \x1b[31mred\x1b]0;title\x07 \u202eevil 漢字 e\u0301 \U0001f468\u200d\U0001f469\ttab\n"
STARTED = events.Started(
    0, 100, 0.0, 0.0, run="r[red]un", path="p.npz", resumed=False, text="t.txt", chars=1000, val_chars=100, vocabulary=26,
    hidden=8, layers=1, parameters=999, memory_bytes=10**8, batch=4, seq=10, optimizer="adam", lr=0.01, clip=1.0, uniform_nats=3.258, unigram_nats=2.8,
    val_nats=None, best_val_nats=None, notes=("made to fit",),
)  # fmt: skip


def progress(step: int) -> events.Progress:
    return events.Progress(step, 100, step / 10, step * 0.5, 3.0 / step, 0.5, 1e-3, 30.0, 2.0, 0.1, 0.01, 8e4, 10.0)


def story() -> list[events.Event]:
    return [
        STARTED,
        events.Planned(1, 100, 0.1, 1.0, 60.0, "100 steps"),
        *(progress(step) for step in range(1, 60)),
        events.Sampled(60, 100, 6.0, 30.0, NASTY, True, "Once upon\n"),
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
        "sample after 'Once upon': [bold]",
        "held-out loss 2.100 nats (3.030 bits) (best so far)",
        "diverged",
        "recovery 1",
        "p.best.npz",
    ):
        assert word in told
    assert len(told.splitlines()) < 25


def test_a_stream_that_nobody_reads_is_noticed_and_not_written_to_again() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream, open_display("json", stream, io.StringIO()) as display:
        assert not display.lost
        display.show(progress(1))
        assert display.lost
        display.show(progress(60))


def test_json_writes_null_for_what_is_not_finite() -> None:
    out = io.StringIO()
    with open_display("json", out, io.StringIO()) as display:
        display.show(events.Diverged(1, None, 0.0, 0.0, "loss", float("nan")))
    assert json.loads(out.getvalue())["lr"] is None


def test_json_events_have_the_time_in_utc() -> None:
    out = io.StringIO()
    east = timezone(timedelta(hours=2))
    display = JsonDisplay(out, now=lambda: datetime(2026, 1, 31, 1, 30, 0, 250_000, east).astimezone(timezone.utc))
    for event in (STARTED, progress(1)):
        display.show(event)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [list(row)[:2] for row in rows] == [["event", "time"]] * 2
    assert {row["time"] for row in rows} == {"2026-01-30T23:30:00.250Z"}
    JsonDisplay(out).show(STARTED)
    assert datetime.now(timezone.utc) - datetime.fromisoformat(
        json.loads(out.getvalue().splitlines()[-1])["time"].replace("Z", "+00:00")
    ) < timedelta(minutes=1)
    assert not any("time" in vars(event) for event in story()), "events know no clock"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Latin(Terminal):
    encoding = "iso-8859-1"  # type: ignore[assignment]


def test_auto_is_live_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert choose_kind("auto", Terminal()) == "live"
    assert choose_kind("auto", io.StringIO()) == "lines"
    assert choose_kind("bar", Terminal()) == "bar"
    assert choose_kind("live", Terminal()) == "live"
    assert choose_kind("live", io.StringIO()) == "lines"
    with monkeypatch.context() as patched:
        patched.setattr("charlstm.display.select.in_foreground", lambda stream: False)
        assert choose_kind("live", Terminal()) == "lines", "the terminal is the shell's"
    assert choose_kind("live", Latin()) == "lines", "it has no characters to draw with"
    monkeypatch.setenv("TERM", "dumb")
    assert choose_kind("auto", Terminal()) == choose_kind("live", Terminal()) == "lines"


def test_control_characters_become_visible() -> None:
    assert formatting.visible("a\x1b[31m\0\x7f\x9b\n\t") == "a\u241b[31m\u2400\u2421<009B>\n\t"
    assert formatting.inline("a\x1b\n\tb\u2028") == "a\u241b\u240a\u2409b<2028>"
    assert formatting.visible("\u202eabc\u2066") == "<202E>abc<2066>"
    assert formatting.visible("漢字 é \U0001f600") == "漢字 é \U0001f600"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (None, "?"), (float("inf"), "?")]
)
def test_durations(seconds: float | None, told: str) -> None:
    assert formatting.duration(seconds) == told


def test_a_number_is_steady_rising_or_falling() -> None:
    for factor, word in ((1.0, "steady"), (1.05, "rising"), (0.95, "falling")):
        trend = formatting.Trend()
        for step in range(100):
            trend.add(factor**step)
        assert trend.word() == word
    small = formatting.Trend(slack=0.01)
    for step in range(100):
        small.add(step / 100_000)
    assert small.word() == "steady", "a thousandth is no rise of a share"


def test_counts() -> None:
    assert [formatting.count(n) for n in (0, 950, 1234, 81000, 1_300_000)] == ["0", "950", "1.2k", "81k", "1.3M"]


def test_a_curve_goes_from_the_top_left_to_the_bottom_right() -> None:
    rows = curve.draw([(x, 10 - x) for x in range(11)], [], 10, 4, 0, 10, 10)
    assert [len(row) for row in rows] == [10] * 4
    assert rows[0][0] != " " == rows[0][-1]
    assert rows[-1][-1] != " " == rows[-1][0]


def test_few_points_make_a_line_without_gaps() -> None:
    rows = curve.draw([(0, 10), (1, 0)], [], 20, 5, 0, 10, 1)
    assert all(any(row[column] != " " for row in rows) for column in range(20))


def test_held_out_losses_are_told_from_training_without_colour() -> None:
    line, marks = [(float(x), 3.0 - x / 100) for x in range(101)], [(50.0, 2.7), (100.0, 2.2)]
    rows = [row for _, row in curve.chart(line, marks, 40, 6)]
    assert sum(row.count(curve.MARK) for row in rows) == 2
    assert sum(0x2800 < ord(c) <= 0x28FF for row in rows for c in row) > 20


def test_the_axis_leaves_the_first_steep_fall_out() -> None:
    line = [(float(x), 2.0 + (3.0 if x < 5 else 0.001 * x)) for x in range(100)]
    (top, _), *_, (bottom, _) = curve.chart(line, [], 40, 6)
    assert (top, bottom) == ("2.10", "2.00") or float(top) < 2.2


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(0.0, float("nan"))]])
def test_a_curve_of_nothing_or_of_one_point_is_drawn_all_the_same(points: list[tuple[float, float]]) -> None:
    assert len(curve.chart(points, [], 30, 5)) == 5


def test_thinning_keeps_the_ends_near_and_the_number_small() -> None:
    thin = curve.thin([(float(x), float(x)) for x in range(1000)], 100)
    assert 50 <= len(thin) <= 100
    assert thin[0][0] < 20
    assert thin[-1][0] > 970
