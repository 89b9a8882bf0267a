"""What reaches the terminal when a screen changes: little, at once, and never anything else than the screen that was meant."""

from __future__ import annotations

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from charlstm.display import cells
from charlstm.display.live import LiveDisplay
from charlstm.display.painter import BEGIN, END, Painter
from tests.experiments import screens

COLUMNS, ROWS = 20, 4
KNOWN = ("\x1b[?2026h", "\x1b[?2026l", "\x1b[H", "\x1b[?1049h", "\x1b[?25l")
Screen = list[list[tuple[str, str]]]


class Terminal(io.StringIO):
    """A terminal that knows as many control sequences as the screen uses."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        self.screen: Screen = [[(" ", "")] * columns for _ in range(rows)]

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        row = column = 0
        style = ""
        for control, character in re.findall(r"(\x1b\[[?\d;]*[A-Za-z])|(.)", text, re.DOTALL):
            if place := re.fullmatch(r"\x1b\[(\d+);(\d+)H", control):
                row, column = int(place[1]) - 1, int(place[2]) - 1
            elif control == "\x1b[2J":
                self.screen = [[(" ", "")] * self.columns for _ in range(self.rows)]
            elif control == "\x1b[0K":
                self.screen[row][column:] = [(" ", "")] * (self.columns - column)
            elif control.endswith("m"):
                style = "" if control == "\x1b[0m" else control
            elif character:
                column = self._put(row, column, character, style)
            else:
                assert control in KNOWN, repr(control)
        return super().write(text)

    def _put(self, row: int, column: int, character: str, style: str) -> int:
        size = cells.width(character)
        assert column + size <= self.columns, "nothing may run over the edge"
        if size == 0:
            self.screen[row][column - 1] = (self.screen[row][column - 1][0] + character, style)
        for k in range(size):
            self.screen[row][column + k] = (character if k == 0 else "", style)
        return column + size

    @property
    def taken(self) -> str:
        """What was written since the last time, which is forgotten."""
        taken = self.getvalue()
        self.seek(0)
        self.truncate()
        return taken


def painter(terminal: Terminal) -> Painter:
    console = Console(file=terminal, width=terminal.columns, height=terminal.rows, force_terminal=True)
    return Painter(console)


def line(parts: list[tuple[str, str]]) -> Text:
    whole = Text.assemble(*((cells.sanitize(text.replace("\n", "").replace("\t", "")), style) for text, style in parts))
    while cells.width(whole.plain) > COLUMNS:
        whole = whole[:-1]
    return whole


STYLED = st.tuples(
    st.text(st.sampled_from("ab  ─█x漢\u0301é\x1b\u202e"), max_size=9), st.sampled_from(["", "dim", "cyan"])
)
LINES = st.lists(STYLED, max_size=4).map(line)


@given(st.lists(st.lists(LINES, min_size=ROWS, max_size=ROWS), min_size=2, max_size=5))
def test_a_screen_updated_in_part_is_the_same_as_one_painted_anew(frames: list[list[Text]]) -> None:
    terminal, once = Terminal(), Terminal()
    updated = painter(terminal)
    for frame in frames:
        updated.paint(frame)
    painter(once).paint(frames[-1])
    assert terminal.screen == once.screen


def test_only_what_changed_is_written_and_all_of_it_is_shown_at_once() -> None:
    terminal = Terminal()
    paint = painter(terminal).paint
    paint([Text("loss 1.234"), Text("a line")])
    assert terminal.taken
    paint([Text("loss 1.234"), Text("a line")])
    assert terminal.taken == ""
    paint([Text("loss 1.244"), Text("a line")])
    assert terminal.taken == f"{BEGIN.text}\x1b[1;9H4{END.text}"
    paint([Text("loss 1.244"), Text("a")])
    assert terminal.taken == f"{BEGIN.text}\x1b[2;2H\x1b[2;2H\x1b[0K{END.text}"


def test_a_frame_costs_a_slow_link_a_small_part_of_the_screen() -> None:
    """At 200x50 cells, a full repaint writes more than 3,000 bytes; what changes from frame to frame is a tenth of it."""
    terminal = Terminal(200, 50)
    display = LiveDisplay(terminal, clock=lambda: now)
    display.console = display.painter.console = Console(file=terminal, width=200, height=50, force_terminal=True)
    sizes: list[int] = []
    now = 0.0
    for event in screens.story():
        now += 0.02
        display.show(event)
        if written := terminal.taken:
            sizes.append(len(written.encode()))
            assert "\x1b[2J" not in written or len(sizes) == 1
    assert max(sizes) > 3000
    assert sorted(sizes)[len(sizes) // 2] < 800
    assert sum(sizes) / len(sizes) < 1200
