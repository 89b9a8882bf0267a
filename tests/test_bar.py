"""The bar: what it leaves out to fit, and what it does to the lines around it."""

from __future__ import annotations

import io
import re

import pytest

from charlstm import events
from charlstm.display.bar import BAR_COLUMNS, BarDisplay
from tests.test_display import STARTED, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("held_out", [False, True])
def test_the_bar_is_never_narrow_and_the_loss_that_counts_stays(held_out: bool) -> None:
    width = 80
    bar = BarDisplay(Terminal(), lambda: width)
    bar.show(STARTED)
    if held_out:
        bar.show(events.Evaluated(9, 100, 0.0, 0.0, 2.0, 2.1, 2.1))
    for width in range(44, 200):
        line = bar._bar(progress(33), width - 1)
        found = re.fullmatch(r".*?: +33%\|(.*?)\| .*", line)
        assert found, line
        assert len(found[1]) >= BAR_COLUMNS, line
        assert len(line) == width - 1
        assert ("held-out 2.100" if held_out else "loss 0.091") in line
        if width >= 80:
            assert "left, loss 0.091" in line


def test_a_line_above_the_bar_is_broken_between_words() -> None:
    terminal = Terminal()
    bar = BarDisplay(terminal, lambda: 40)
    note = "a note that is so long that it has to be broken somewhere, but not in the middle of a word"
    bar.show(events.Started(**{**vars(STARTED), "notes": (note,)}))
    lines = terminal.getvalue().splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert f"note: {note}" in " ".join(lines)


def test_a_bar_that_a_narrower_window_wrapped_is_cleared_whole() -> None:
    """The cursor rests where the bar begins, and everything below is cleared."""
    widths = [40, 100]
    terminal = Terminal()
    bar = BarDisplay(terminal, lambda: widths[-1])
    bar.show(progress(1))
    widths.pop()
    bar.show(progress(50))
    assert re.fullmatch(r"(\r\x1b\[J[^\r\n]+\r){2}", terminal.getvalue())
    bar.show(events.Diverged(51, 100, 0.0, 0.0, "the loss is no longer finite", 0.01))
    assert "\r\x1b[Jstep 51: diverged: the loss is no longer\nfinite\n\r\x1b[J" in terminal.getvalue()


def test_a_stream_without_block_characters_gets_others() -> None:
    class Latin(io.StringIO):
        encoding = "iso-8859-1"  # type: ignore[assignment]

    stream = Latin()
    bar = BarDisplay(stream, lambda: 60)
    bar.show(progress(50))
    assert stream.getvalue().isascii()
