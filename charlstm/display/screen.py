"""The Live screen as lines of styled text, laid out for any size, with what matters most the largest.

It uses the terminal's named colours that are legible on both light and dark. No information is in colour alone, and coloured text is
not bold, because some terminals change the colour of bold text.
"""

from __future__ import annotations

from rich.text import Text

from charlstm.display import cells, curve, formatting, widgets
from charlstm.display.view import RunView, Sample

TRAINING, HELD_OUT = "cyan", "magenta"
TRAINING_POINTER, HELD_OUT_POINTER = "x", curve.MARK
LARGE_ROWS, LARGE_COLUMNS, TWO_LARGE_COLUMNS, BITS_COLUMNS = 20, 60, 80, 100
"""Minimum size for the loss in large digits; for both losses; for losses in bits."""
CURVE_ROWS, WIDE_CURVE_ROWS, WIDE_COLUMNS = 22, 13, 120
"""Minimum size for the curve; wide screens have the sample beside it, so they need fewer rows."""
HEALTH_ROWS, FOOTER_ROWS, SCALE_ROWS, MESSAGE_ROWS = 13, 12, 9, 20
"""Minimum height for health, for the footer, for the scale, and for a message row; below the latter, a message of trouble replaces
the title."""
LEAST_COLUMNS, HEALTH_COLUMNS = 30, 26
LEAST_CURVE, MOST_CURVE = 6, 16
"""Minimum and maximum height of the curve; a higher one shows no more."""
SAMPLE_ROWS, OLD_ROWS, OLD_COLUMNS = 10, 8, 58
"""Rows that hold a whole sample, minimum number of rows for older samples below it, and minimum width of one of these."""
NATS, FLOOR, SHARE = 0.5, 1.0, 0.8
"""The scale ends at `FLOOR`, which few runs reach; if a value comes close, it ends at a multiple of `NATS` below `SHARE` of it."""
CURSOR = "▌"


def draw(run: RunView, width: int, height: int) -> list[Text]:
    """Draw exactly `height` lines of at most `width` cells, or 2 if `width` is less."""
    lines = _lines(run, width, height)
    if width < LEAST_COLUMNS:
        for line in lines:
            line.truncate(max(width, 2))
    return lines


def _lines(run: RunView, width: int, height: int) -> list[Text]:
    message = Text(cells.fit(run.message, width), "bold" if run.trouble else "dim")
    head = [message if run.trouble and height < MESSAGE_ROWS else _title(run, width)]
    large = height >= LARGE_ROWS and width >= LARGE_COLUMNS
    head += _losses_large(run, width) if large else [_losses(run, width)]
    if height >= SCALE_ROWS and width >= LEAST_COLUMNS:
        head += _scale(run, width)
    head.append(_time(run, width))
    if height >= MESSAGE_ROWS:
        head.append(message)
    foot = [Text(cells.fit(run.footer, width), "dim")] if height >= FOOTER_ROWS else []
    body = _body(run, width, height - len(head) - len(foot), height)
    return (head + body + foot)[:height]


def _body(run: RunView, width: int, rows: int, height: int) -> list[Text]:
    """Draw curve, health and samples in `rows` lines; `height` is that of the whole screen."""
    if width >= WIDE_COLUMNS and height >= WIDE_CURVE_ROWS:
        left = max(width // 2, 40 + HEALTH_COLUMNS)
        upper = min(rows, MOST_CURVE) if rows - MOST_CURVE >= OLD_ROWS else rows
        beside = _beside(_curve(run, left, upper), left + 2, _sample(run, width - left - 2, upper))
        return beside + _older(run, width, rows - upper)
    if height >= CURVE_ROWS and width >= LARGE_COLUMNS:
        above = _curve(run, width, min(max(LEAST_CURVE, 2 * rows // 5), MOST_CURVE))
    else:
        above = _health_grid(run, width) if height >= HEALTH_ROWS else []
    rows = max(0, rows - len(above))
    current = max(SAMPLE_ROWS, rows // 2) if rows >= SAMPLE_ROWS + OLD_ROWS else rows
    return above + _sample(run, width, current) + _older(run, width, rows - current)


def _title(run: RunView, width: int) -> Text:
    s = run.started
    if s is None:
        return Text("charlstm")
    name = cells.fit(s.run, width)
    about = (
        f"  {s.layers}x{s.hidden} LSTM, {formatting.count(s.parameters)} parameters, batch {s.batch} x {s.seq}, "
        f"{formatting.count(s.chars)} characters, {s.vocabulary:,} distinct"
    )
    return Text.assemble((name, "bold"), (cells.fit(about, width - cells.width(name)), "dim"))


def _losses(run: RunView, width: int) -> Text:
    """Draw the losses in one line, compared with the hardest baseline that is known."""
    text = Text()
    losses = [loss[:3] for loss in _both(run)]
    for pointer, name, nats in [*losses, ("", "best", run.best_val_nats)]:
        if pointer or nats is not None:
            label = f"{pointer} {name} " if width >= LARGE_COLUMNS else f"{pointer or name} "
            text.append(label.lstrip(), "dim").append(formatting.nats(nats), "bold" if pointer else "").append("   ")
    name, nats = next(((name, nats) for name, nats in run.baselines() if nats is not None), ("", None))
    if nats is not None and run.judged_nats is not None:
        text.append(f"{_apart(run.judged_nats, nats)} {name}", "dim")
    text.truncate(width, overflow="ellipsis")
    return text


def _losses_large(run: RunView, width: int) -> list[Text]:
    """Draw the losses in large digits, with a table of baselines beside them."""
    both = _both(run)
    shown = both if width >= TWO_LARGE_COLUMNS else both[-1:]
    lines = [Text() for _ in range(1 + widgets.DIGIT_ROWS)]
    for pointer, name, nats, style in shown:
        rows = widgets.large(nats)
        room = max(17, len(rows[0])) + 3
        lines[0].append(f"{pointer} {name}".ljust(room), "bold")
        for line, row in zip(lines[1:], rows, strict=True):
            line.append(row.ljust(room), style)
    table = [("best", run.best_val_nats), *run.baselines()]
    if len(shown) < len(both):
        table = [both[0][1:3], *table]
    for line, (name, nats) in zip(lines, table, strict=False):
        line.append(f"{name:<9}", "dim").append(f"{formatting.nats(nats):<6}")
        if nats is not None and width >= BITS_COLUMNS:
            line.append(f" {formatting.bits(nats):.3f} bits ", "dim")
        if nats is not None and run.judged_nats is not None and name not in ("best", both[0][1]):
            line.append(f" {_apart(run.judged_nats, nats)}", "dim")
    return lines


def _both(run: RunView) -> list[tuple[str, str, float | None, str]]:
    """Return pointer, name, value and style of the training loss and of the held-out loss, if any; the last one is compared."""
    losses = [(TRAINING_POINTER, "training", run.smooth, TRAINING)]
    if run.val_nats is not None:
        losses.append((HELD_OUT_POINTER, "held out", run.val_nats, HELD_OUT))
    return losses


def _apart(nats: float, mark: float) -> str:
    return f"{abs(nats - mark):.3f} {'below' if nats < mark else 'above'}"


def _scale(run: RunView, width: int) -> list[Text]:
    """Draw the scale from chance to about the best that a run can reach, with the baselines as marks and the losses as pointers."""
    baselines = [(name, nats) for name, nats in run.baselines() if nats is not None]
    pointers = [(pointer, nats) for pointer, _, nats, _ in _both(run) if nats is not None]
    values = [nats for _, nats in (*baselines, *pointers)]
    start = max((nats for _, nats in baselines), default=4.0)
    end = min([FLOOR, *(SHARE * nats // NATS * NATS for nats in values)])
    order = [*baselines[:-2], *baselines[-1:], *baselines[-2:-1], ("", end)]  # if not all fit, chance wins over letters
    names, line = widgets.scale(width, start, end, order, pointers)
    drawn = Text(line)
    drawn.highlight_regex("[─┼]+", "dim")
    for pointer, _, _, style in _both(run):
        drawn.highlight_regex(pointer, style)
    return [Text(names, "dim"), drawn]


def _time(run: RunView, width: int) -> Text:
    p = run.progress
    share = p.step / p.steps if p and p.steps else 0.0
    text = f"{share:4.0%}" if p and p.steps else "measuring the pace"
    if p is not None:
        text += f"  {formatting.duration(p.elapsed_s)} gone, {formatting.duration(p.remaining_s)} left"
        if width >= LARGE_COLUMNS:
            text += f"  {formatting.count(p.chars_per_s)} chars/s"
        if width >= TWO_LARGE_COLUMNS:
            text += f"  step {p.step:,}" + (f" of {p.steps:,}" if width >= BITS_COLUMNS and p.steps else "")
            text += f", epoch {p.epoch:.1f}" if width >= BITS_COLUMNS else ""
    text = cells.fit(text, width)
    return Text.assemble(widgets.bar(share, width - len(text) - 2), "  ", text)


def _curve(run: RunView, width: int, rows: int) -> list[Text]:
    """Draw the curves, with health beside them."""
    room = width - HEALTH_COLUMNS
    drawn: list[Text] = []
    if len(run.train_curve) > 1:
        for label, row in curve.chart(run.train_curve, run.val_curve, room, rows):
            drawn.append(Text.assemble((label, "dim"), " ", (row, TRAINING)))
            drawn[-1].highlight_regex(curve.MARK, HELD_OUT)
    drawn += [Text() for _ in range(rows - len(drawn))]
    health = [Text("  ").append(line) for line in _health(run)]
    return _beside(drawn, room, health[:rows])


def _health(run: RunView) -> list[Text]:
    """Draw the health quantities, one per line of equal width: name, number and trend, in bold if it may mean trouble."""
    lines = [
        Text.assemble(
            (f"{name:<9}", "dim"), f" {number:>6} ", (f"{word:<7}", "bold" if word in ("rising", "clipped") else "dim")
        )
        for name, number, word in run.health()
    ]
    if p := run.progress:
        lines.append(Text.assemble(("rate     ", "dim"), f" {p.lr:>6.0e} ", " " * 7))
    return lines


def _health_grid(run: RunView, width: int) -> list[Text]:
    """Draw the health quantities in as few lines as the width allows."""
    columns, parts = max(1, width // HEALTH_COLUMNS), _health(run)
    return [Text("  ").join(parts[k : k + columns]) for k in range(0, len(parts), columns)]


def _sample(run: RunView, width: int, rows: int) -> list[Text]:
    """Draw as much of the end of the newest sample as fits, below a rule; a > marks the prompt."""
    if rows < 1:
        return []
    sample = run.samples[-1] if run.samples else None
    lines = [_rule(f"it writes at step {sample.step:,}" if sample else "it writes", width)]
    if sample:
        lines += _prompt(sample, width)
        lines += [Text(line) for line in cells.wrap(written(sample) + CURSOR, width)]
    lines = [lines[0], *lines[1:][-(rows - 1) :]] if rows > 1 else lines[:1]
    return lines + [Text() for _ in range(rows - len(lines))]


def _older(run: RunView, width: int, rows: int) -> list[Text]:
    """Draw older samples, dim, in as many columns as the width allows: the newest of them on top, from left to right."""
    columns = max(1, width // OLD_COLUMNS)
    room = (width - 2 * (columns - 1)) // columns
    older = run.samples[-2::-1]
    lines: list[Text] = []
    for column in range(columns):
        drawn = [line for sample in older[column::columns] for line in _old(sample, room)]
        lines = _beside(lines, column * (room + 2), drawn[:rows])
    return lines + [Text() for _ in range(rows - len(lines))]


def _old(sample: Sample, width: int) -> list[Text]:
    """Draw an older sample below a rule with its step."""
    lines = [_rule(f"step {sample.step:,}", width), *_prompt(sample, width)]
    return lines + [Text(line, "dim") for line in cells.wrap(written(sample), width)]


def _rule(title: str, width: int) -> Text:
    title = f"── {title} "
    return Text(cells.fit(title + "─" * (width - len(title)), width), "dim")


def _prompt(sample: Sample, width: int) -> list[Text]:
    prompt = cells.sanitize(sample.prompt).rstrip("\n")
    return [Text("> " + line, "dim") for line in cells.wrap(prompt, width - 2)] if prompt else []


def written(sample: Sample) -> str:
    """Return the text of a sample in a form that is safe to print; an ellipsis tells that it continues the line of the prompt."""
    continues = "…" if sample.prompt and not sample.prompt.endswith("\n") else ""
    return cells.sanitize(continues + sample.text.lstrip("\n"))


def _beside(left: list[Text], width: int, right: list[Text]) -> list[Text]:
    """Join two columns, the left `width` cells wide. The sample goes to the right, where a wrongly measured line shifts nothing."""
    lines = []
    for k in range(max(len(left), len(right))):
        line = left[k].copy() if k < len(left) else Text()
        if k < len(right):
            line.append(" " * (width - cells.width(line.plain))).append(right[k])
        lines.append(line)
    return lines
