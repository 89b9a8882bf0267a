"""A tqdm progress bar, the most compact display."""

from __future__ import annotations

from typing import NoReturn, TextIO

from tqdm import tqdm

from charlstm import events
from charlstm.display import formatting, lines
from charlstm.display.base import Display

EVERY_S = 0.5
FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
"""Omits tqdm's own time and pace, which would include the time that the process was suspended."""


class BarDisplay(Display):
    """A bar of steps, followed by the loss; all other events are printed above it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.bar: tqdm[NoReturn] | None = None
        self.text = lines.LinesDisplay(stream, silent=True)
        self.val_nats: float | None = None
        self.next_s = 0.0

    def close(self) -> None:
        """Close the bar and leave its line."""
        if self.bar is not None:
            self.bar.close()

    def show(self, event: events.Event) -> None:
        """Update the bar, or print a line above it."""
        match event:
            case events.Started():
                for line in lines.started(event):
                    print(line, file=self.stream)
                self.bar = tqdm(
                    total=event.steps,
                    initial=event.step,
                    desc=event.run,
                    unit="step",
                    file=self.stream,
                    dynamic_ncols=True,
                    bar_format=FORMAT,
                )
            case events.Progress() if self.bar is not None:
                if event.elapsed_s < self.next_s and event.step != event.steps:
                    return
                self.next_s = event.elapsed_s + EVERY_S
                self.bar.total = event.steps
                val = "" if self.val_nats is None else f", held-out {self.val_nats:.3f}"
                self.bar.set_postfix_str(
                    f"{formatting.duration(event.elapsed_s)} gone, {formatting.duration(event.remaining_s)} left, "
                    f"loss {event.loss_nats:.3f}{val}, {formatting.count(event.chars_per_s)} chars/s",
                    refresh=False,
                )
                self.bar.update(event.step - self.bar.n)
            case events.Evaluated():
                self.val_nats = event.val_nats
            case events.SaveFailed() if self.bar is not None:
                self.bar.clear()
                print(formatting.unsaved(event.reason), file=self.stream)
            case events.Diverged() | events.Recovered() if self.bar is not None:
                self.bar.clear()
                print(f"step {event.step}: {event.name}", file=self.stream)
            case events.Finished():
                if self.bar is not None:
                    self.bar.close()
                    self.bar = None
                for line in lines.finished(event):
                    print(line, file=self.stream)
            case _:
                pass
