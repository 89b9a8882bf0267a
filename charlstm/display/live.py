"""The Live screen: the loss against its marks, its curve, the time, and the text that is being learned."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from charlstm import events
from charlstm.display import curve, lines, words

MIN_FRAME_S = 0.1
SHARE = 0.008
"""Drawing takes at most this share of the time: a frame that took long is followed by a longer pause."""
CURVE_POINTS = 600
SMOOTH = 0.95
MAX_SAMPLE = 4000
WITH_CURVE_ROWS, WITH_CURVE_COLUMNS, WITH_HEALTH_ROWS = 20, 50, 12
"""A screen smaller than this has no room for the curve, or for the line of health."""


class LiveDisplay:
    """The screen of a run in training; draws on the given stream only, and leaves a summary behind."""

    stream_preview = True

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
        self.live = Live(
            console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self.started: events.Started | None = None
        self.progress: events.Progress | None = None
        self.evaluated: events.Evaluated | None = None
        self.smooth: float | None = None
        self.train_curve: list[tuple[float, float]] = []
        self.val_curve: list[tuple[float, float]] = []
        self.gradient, self.cells, self.weights = words.Trend(), words.Trend(), words.Trend()
        self.sample = ""
        self.message = ""
        self.next_s = 0.0

    def __enter__(self) -> LiveDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def rest(self) -> None:
        """Give the terminal back; the next frame takes it again."""
        self.live.stop()

    def show(self, event: events.Event) -> None:
        """Take the event in, and draw a frame if one is due."""
        match event:
            case events.Started():
                self.started = event
                self.message = "; ".join(event.notes)
                self.live.start()
                self.next_s = 0.0
            case events.Progress():
                self._take_progress(event)
            case events.Evaluated():
                self.evaluated = event
                self.val_curve.append((event.step, event.val_nats))
            case events.Sampled():
                self.sample = (("" if event.fresh else self.sample) + event.text)[-MAX_SAMPLE:]
            case events.Planned():
                self.message = event.note
            case events.Unsaved():
                self.message = f"not saved: {event.reason}; training goes on, and it is tried again"
            case events.Diverged():
                self.message = f"step {event.step}: {event.reason}"
            case events.Recovered():
                self.message += f"; went back to good weights, rate {event.lr:.3g}"
            case events.Finished():
                self.live.stop()
                self._summarise(event)
                return
            case _:
                return
        self._draw()

    def _take_progress(self, event: events.Progress) -> None:
        self.progress = event
        self.smooth = event.loss_nats if self.smooth is None else SMOOTH * self.smooth + (1 - SMOOTH) * event.loss_nats
        self.train_curve.append((event.step, self.smooth))
        for trend, value in (
            (self.gradient, event.grad_norm),
            (self.cells, event.cell_max),
            (self.weights, event.weight_norm),
        ):
            trend.add(value)
        if len(self.train_curve) > 2 * CURVE_POINTS:
            self.train_curve = curve.thin(self.train_curve, CURVE_POINTS)

    def _draw(self) -> None:
        now = time.monotonic()
        if now < self.next_s:
            return
        self.live.start()
        self.live.update(self._screen(), refresh=True)
        done = time.monotonic()
        self.next_s = done + max(MIN_FRAME_S, (done - now) / SHARE)

    def _screen(self) -> RenderableType:
        width, height = self.console.size
        head: list[RenderableType] = [self._title(), self._losses(), self._time()]
        if height >= WITH_HEALTH_ROWS:
            head.append(self._health())
        if self.message and height >= WITH_HEALTH_ROWS:
            head.append(Text(self.message, style="dim", no_wrap=True, overflow="ellipsis"))
        rows = height - len(head) - 4  # the losses take two rows, the pane's frame two, the cursor one
        if height >= WITH_CURVE_ROWS and width >= WITH_CURVE_COLUMNS and len(self.train_curve) > 1:
            curve_rows = max(4, rows // 3)
            head.append(self._curve(width, curve_rows))
            rows -= curve_rows
        return Group(*head, self._pane(width, max(1, rows - 1)))

    def _title(self) -> Text:
        s = self.started
        if s is None:
            return Text("charlstm")
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(s.run, style="bold")
        text.append(
            f"  {s.layers}x{s.hidden} LSTM, {words.count(s.parameters)} parameters, batch {s.batch} x {s.seq}, "
            f"{words.count(s.chars)} characters, {s.vocabulary:,} different",
            style="dim",
        )
        return text

    def _losses(self) -> Table:
        """Train and held-out loss, large, beside the marks that they are to be read against."""
        s, e, table = self.started, self.evaluated, Table.grid(expand=True, padding=(0, 1))
        cells: list[tuple[str, float | None, str]] = [
            ("training", self.smooth, "bold cyan"),
            ("held out", self.evaluated.val_nats if self.evaluated else (s.val_nats if s else None), "bold magenta"),
            ("best", self.evaluated.best_val_nats if self.evaluated else (s.best_val_nats if s else None), "bold"),
            (f"{e.ngram_order}-gram" if e and e.ngram_order else "n-gram", e.ngram_nats if e else None, "dim"),
            ("letters", s.letters_nats if s else None, "dim"),
            ("chance", s.chance_nats if s else None, "dim"),
        ]
        for _ in cells:
            table.add_column(no_wrap=True)
        table.add_row(*(Text(name, style="dim") for name, _, _ in cells))
        show_bits = self.console.width >= 120
        row = []
        for _, nats, style in cells:
            value = "-" if nats is None else f"{nats:.3f}" + (f" ({words.bits(nats):.2f} bits)" if show_bits else "")
            row.append(Text(value, style=style))
        table.add_row(*row)
        return table

    def _time(self) -> RenderableType:
        p, table = self.progress, Table.grid(expand=True, padding=(0, 1))
        steps, step = (p.steps, p.step) if p else (None, 0)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        bar = ProgressBar(total=steps or 1, completed=step if steps else 0)
        numbers = f"{step / steps:.0%}" if steps else "measuring"
        if p:
            numbers += f"  {words.duration(p.elapsed_s)} gone, {words.duration(p.remaining_s)} left"
            if self.console.width >= 80:
                numbers += f"  {words.count(p.chars_per_s)} chars/s"
        table.add_row(bar, Text(numbers))
        return table

    def _health(self) -> Text:
        """Gradient, cell state, weights: a number and a word each; and the size of a step, and how many gates are stuck."""
        p = self.progress
        text = Text(no_wrap=True, overflow="ellipsis", style="dim")
        if p is None:
            return text
        clip = self.started.clip if self.started else 0.0
        clipped = 0 < clip < p.grad_norm
        for name, number, word in (
            ("gradient", f"{p.grad_norm:.2f}", "clipped" if clipped else self.gradient.word()),
            ("|c|", f"{p.cell_max:.0f}", self.cells.word()),
            ("weights", f"{p.weight_norm:.0f}", self.weights.word()),
        ):
            text.append(f"{name} {number} ")
            text.append(f"{word}  ", style="not dim" if word == "steady" else "bold yellow")
        text.append(f"update {p.update_ratio:.0e}  saturated {p.saturated:.0%}  rate {p.lr:.1e}  ")
        text.append(f"step {p.step:,}{f' of {p.steps:,}' if p.steps else ''}, pass {p.epoch:.1f}")
        return text

    def _curve(self, width: int, rows: int) -> RenderableType:
        everything = [y for _, y in self.train_curve + self.val_curve]
        high = min(max(everything), self.started.chance_nats if self.started else max(everything))
        low = min(everything)
        last = max(self.train_curve[-1][0], 1)
        marks = f"{high:.2f}"
        body = curve.draw(self.train_curve, self.val_curve, max(8, width - len(marks) - 2), rows, low, high, last)
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", width=len(marks))
        table.add_column(no_wrap=True)
        for number, row in enumerate(body):
            mark = marks if number == 0 else f"{low:.2f}" if number == rows - 1 else ""
            table.add_row(Text(mark, style="dim"), Text(row, style="cyan"))
        return table

    def _pane(self, width: int, rows: int) -> Panel:
        """The end of the sample that fits, as plain text that can't style or drive anything."""
        text = Text(words.visible(self.sample), overflow="fold")
        shown = text.wrap(self.console, max(1, width - 4), tab_size=4)[-rows:]
        body = Text("\n").join(shown)
        body.append("\n" * (rows - len(shown)))
        return Panel(body, title="it writes", title_align="left", border_style="dim", padding=(0, 1))

    def _summarise(self, event: events.Finished) -> None:
        for line in lines.finished(event):
            self.console.print(Text(line))
        name = self.started.run if self.started else ""
        self.console.print(
            Text(f"write text:  charlstm sample {name} --temp 0.8\ntrain on:    charlstm resume {name} --minutes 5")
        )
