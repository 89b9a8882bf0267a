"""The state of a run as a screen shows it, collected from events; it knows nothing of layout."""

from __future__ import annotations

from dataclasses import dataclass

from charlstm import events
from charlstm.display import curve
from charlstm.display.formatting import Trend, unsaved

CURVE_POINTS = 600
SMOOTH = 0.95
MAX_SAMPLE, MAX_SAMPLES = 4000, 12
"""Maximum number of characters kept of a sample, and of samples."""
SATURATED_SLACK = 0.01
"""A change of the saturated share smaller than this is not a trend: the share is often near 0, where ratios mean little."""


@dataclass
class Sample:
    """A text that the model writes during training."""

    step: int  # at which it began
    prompt: str
    text: str = ""


class RunView:
    """Everything that a screen shows of a run, updated event by event."""

    def __init__(self) -> None:
        self.started: events.Started | None = None
        self.progress: events.Progress | None = None
        self.evaluated: events.Evaluated | None = None
        self.smooth: float | None = None
        self.train_curve: list[tuple[float, float]] = []
        self.val_curve: list[tuple[float, float]] = []
        self.trends = {q.field: Trend(SATURATED_SLACK if q.field == "saturated" else 0.0) for q in events.HEALTH}
        self.samples: list[Sample] = []  # the newest last
        self.footer = "Ctrl-C: save and stop"
        self.message = ""
        self.trouble = False  # whether the message reports any

    def take(self, event: events.Event) -> None:
        """Update from the next event."""
        match event:
            case events.Started():
                self.started = event
                self.message = "; ".join(event.notes)
            case events.Progress():
                self._take_progress(event)
            case events.Evaluated():
                self.evaluated = event
                self.val_curve.append((event.step, event.val_nats))
            case events.Sampled():
                if event.new or not self.samples:
                    self.samples = [*self.samples[1 - MAX_SAMPLES :], Sample(event.step, event.prompt)]
                self.samples[-1].text = (self.samples[-1].text + event.text)[-MAX_SAMPLE:]
            case events.Planned():
                self._say(event.note)
            case events.SaveFailed():
                self._say(unsaved(event.reason), trouble=True)
            case events.Saved() if self.message.startswith("not saved: "):
                self._say(f"saved at step {event.step:,}")
            case events.Diverged():
                self._say(f"step {event.step:,}: {event.reason}", trouble=True)
            case events.Recovered():
                self.message += f"; restored the last good weights, rate {event.lr:.3g}"
            case _:
                pass

    def _say(self, message: str, *, trouble: bool = False) -> None:
        self.message, self.trouble = message, trouble

    def _take_progress(self, event: events.Progress) -> None:
        self.progress = event
        self.smooth = event.loss_nats if self.smooth is None else SMOOTH * self.smooth + (1 - SMOOTH) * event.loss_nats
        self.train_curve.append((event.step, self.smooth))
        for field, trend in self.trends.items():
            trend.add(getattr(event, field))
        if len(self.train_curve) > 2 * CURVE_POINTS:
            self.train_curve = curve.thin(self.train_curve, CURVE_POINTS)

    @property
    def val_nats(self) -> float | None:
        """The last held-out loss, from an earlier session if this one has none yet."""
        return self.evaluated.val_nats if self.evaluated else self.started.val_nats if self.started else None

    @property
    def best_val_nats(self) -> float | None:
        """The lowest held-out loss."""
        return self.evaluated.best_val_nats if self.evaluated else self.started.best_val_nats if self.started else None

    @property
    def judged_nats(self) -> float | None:
        """The loss to compare with the baselines: held out, or training if nothing is held out."""
        return self.smooth if self.val_nats is None else self.val_nats

    def baselines(self) -> list[tuple[str, float | None]]:
        """Return name and loss of the baselines, the hardest first; None if not known yet."""
        s, e = self.started, self.evaluated
        counting = f"{e.ngram_order}-gram" if e and e.ngram_order else "n-gram"
        return [
            (counting, e.ngram_nats if e else None),
            ("letters", s.unigram_nats if s else None),
            ("chance", s.uniform_nats if s else None),
        ]

    def health(self) -> list[tuple[str, str, str]]:
        """Return label, value and trend of every health quantity."""
        p = self.progress
        if p is None:
            return []
        clip = self.started.clip if self.started else 0.0
        words = {field: trend.word() for field, trend in self.trends.items()}
        if 0 < clip < p.grad_norm:
            words["grad_norm"] = "clipped"
        return [(q.label, format(getattr(p, q.field), q.spec), words[q.field]) for q in events.HEALTH]
