"""Plain lines for logs, without colour and control codes, and few enough to be read."""

from __future__ import annotations

import time
from typing import TextIO

from charlstm import events
from charlstm.display import formatting
from charlstm.display.base import Display

FIRST_S, EVERY_S, SHARE = 0.5, 5.0, 0.05
"""Seconds until the first progress line; then seconds between two, or this share of the elapsed time if that is more."""


class LinesDisplay(Display):
    """Prints a progress line per interval, and a line for each other event; `silent` prints nothing."""

    def __init__(self, stream: TextIO, *, silent: bool = False) -> None:
        self.stream, self.silent = stream, silent
        self.next_s = 0.0

    def show(self, event: events.Event) -> None:
        """Print the lines for an event, if any."""
        if self.silent:
            return
        for line in self._lines(event):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {formatting.inline(line)}", file=self.stream, flush=True)

    def _lines(self, event: events.Event) -> list[str]:
        match event:
            case events.Started():
                return started(event)
            case events.Planned():
                return [f"plan: {event.note}, {formatting.duration(event.remaining_s)} to go"]
            case events.Progress():
                if event.elapsed_s < (self.next_s or FIRST_S):
                    return []
                self.next_s = event.elapsed_s + max(EVERY_S, SHARE * event.elapsed_s)
                return [progress(event)]
            case events.Evaluated():
                mark = (
                    " (best so far)" if event.val_nats <= event.best_val_nats else f" (best {event.best_val_nats:.3f})"
                )
                return [
                    f"step {event.step}: held-out loss {formatting.loss(event.val_nats)}{mark}, training loss {event.loss_nats:.3f}"
                    f"{formatting.against(event.val_nats, event.ngram_nats, event.ngram_order)}"
                ]
            case events.Sampled():
                after = f" after {formatting.one_line(event.prompt, 60)!r}" if event.prompt else ""
                return [f"sample{after}: {formatting.one_line(event.text, 160)}"]
            case events.Saved():
                return [f"saved {event.path}"] if event.step == 0 or event.best else []
            case events.SaveFailed():
                return [f"step {event.step}: {formatting.unsaved(event.reason)}"]
            case events.Diverged():
                return [f"step {event.step}: diverged: {event.reason} (rate {event.lr:.3g})"]
            case events.Recovered():
                return [
                    f"step {event.step}: back to the last good weights, rate {event.lr:.3g} (recovery {event.recoveries})"
                ]
            case events.Finished():
                return finished(event)
        return []


def started(event: events.Started) -> list[str]:
    """Describe what is about to be trained, in two or three lines plus notes."""
    verb = "resumed" if event.resumed else "started"
    held_out = f" and {event.val_text}, {event.val_chars:,}" if event.val_text else f" ({event.val_chars:,} held out)"
    lines = [
        f"{verb} {event.run}: {event.text}, {event.chars:,} characters{held_out}, {event.vocabulary:,} distinct",
        f"model: {event.layers}x{event.hidden} LSTM, {event.parameters:,} parameters, {event.memory_bytes / 1e6:.0f} MB; batch {event.batch}, window {event.seq}, "
        f"{event.optimizer} at {event.lr:g}; baselines: chance {event.uniform_nats:.3f} nats, letter frequencies {event.unigram_nats:.3f}",
    ]
    if event.resumed and event.val_nats is not None:
        lines.append(f"at step {event.step}: held-out loss {formatting.loss(event.val_nats)}")
    return lines + [f"note: {note}" for note in event.notes]


def progress(event: events.Progress) -> str:
    """Describe the progress of training, in one line."""
    share = f"/{event.steps} {event.step / event.steps:4.0%}" if event.steps else ""
    return (
        f"step {event.step}{share} epoch {event.epoch:.2f} loss {formatting.loss(event.loss_nats)} grad {event.grad_norm:.2f} "
        f"|c| {event.cell_max:.1f} weights {event.weight_norm:.1f} update {event.update_ratio:.1e} "
        f"saturated {event.saturated:.0%} lr {event.lr:.2g} {formatting.count(event.chars_per_s)} chars/s "
        f"left {formatting.duration(event.remaining_s)}"
    )


def finished(event: events.Finished) -> list[str]:
    """Describe how training ended, in one line plus a hint."""
    best = best_loss(event)
    lines = [
        f"{ending(event)} at step {event.step} in {formatting.duration(event.elapsed_s)}{best and f', {best}'}: {event.path}"
    ]
    return [*lines, f"note: {event.hint}"] if event.hint else lines


def ending(event: events.Finished) -> str:
    """Say what ended training."""
    if event.reason == "early_stop":
        return "stopped early (the held-out loss stopped improving)"
    return "finished" if event.reason in ("done", "nothing to do") else f"stopped by {event.reason} after saving"


def best_loss(event: events.Finished) -> str:
    """Compare the best held-out loss with the n-gram baseline; empty if nothing is held out."""
    if event.best_val_nats is None:
        return ""
    against = formatting.against(event.best_val_nats, event.ngram_nats, event.ngram_order)
    return f"best held-out loss {formatting.loss(event.best_val_nats)}{against}"
