"""What `sample` and `info` put on stdout."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from charlstm import blas, checkpoint, evaluation, runs, sampling
from charlstm.checkpoint import Checkpoint
from charlstm.display.jsonl import dump
from charlstm.display.words import bits, visible
from charlstm.errors import UsageError
from charlstm.settings import SampleConfig


def write_samples(
    run: str | None, folder: Path, settings: SampleConfig, count: int, seed: int | None, *, as_json: bool
) -> int:
    """Write `count` texts of a run to stdout, each character as soon as it is made; returns the exit status."""
    if count < 1:
        raise UsageError(f"-n {count} is out of range: it must be at least 1")
    if settings.prompt == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("--prompt - was given but standard input is closed: pipe a text into it")
        settings = SampleConfig(**vars(settings) | {"prompt": sys.stdin.read().removesuffix("\n")})
    endless = settings.length == 0 and settings.lines == 0
    if endless and not settings.stop and (as_json or count > 1):
        raise UsageError("a text without an end can't be told as JSON or be one of several: give a --length")
    writer = checkpoint.load(runs.find_run(run, folder, best=True)).writer
    if settings.lines > 0 and settings.length == 0 and "\n" not in writer.vocabulary:
        raise UsageError("--lines needs a model that knows line ends, and this one never saw any: give a --length")
    if seed is None:
        seed = secrets.randbelow(2**31)
        print(f"seed {seed}", file=sys.stderr)
    texts = _Texts(writer, settings, [seed + number for number in range(count)])
    if as_json:
        for number in range(count):
            _print_json(writer, settings, seed + number, "".join(texts.pieces(number)))
    else:
        _write_texts(texts, count)
    return 0


class _Texts:
    """Several texts that are made as one batch and read one after the other."""

    def __init__(self, writer: sampling.Writer, settings: SampleConfig, seeds: list[int]) -> None:
        prompt = sampling.readable_prompt(writer.vocabulary, settings.prompt, settings.unknown)
        self.waiting = [[prompt] for _ in seeds]
        self.steps = sampling.generate(writer, settings, [np.random.default_rng(seed) for seed in seeds], blas.cores())

    def pieces(self, number: int) -> Iterator[str]:
        """One text, piece by piece, as soon as each is made; what is made of the others meanwhile is kept."""
        while True:
            yield from self.waiting[number]
            self.waiting[number].clear()
            made = next(self.steps, None)
            if made is None:
                return
            for waiting, piece in zip(self.waiting, made, strict=True):
                waiting.append(piece)


def _write_texts(texts: _Texts, count: int) -> None:
    """Texts to stdout; on a terminal control characters are made visible, and each text ends with a line end."""
    out = sys.stdout
    out.reconfigure(errors="replace")  # type: ignore[union-attr]
    on_terminal = out.isatty()
    for number in range(count):
        last = ""
        for piece in texts.pieces(number):
            out.write(visible(piece) if on_terminal else piece)
            out.flush()
            last = piece or last
        if not last.endswith("\n") and (on_terminal or number < count - 1):
            out.write("\n")
    out.flush()


def _print_json(writer: sampling.Writer, settings: SampleConfig, seed: int, text: str) -> None:
    ids = writer.vocabulary.encode(text)
    nats = evaluation.evaluate(writer.params, writer.config, ids) if len(ids) > 1 else None
    print(dump({"text": text, "seed": seed, "nats_per_char": nats, "settings": vars(settings)}), flush=True)


def write_info(run: str | None, folder: Path, *, as_json: bool) -> int:
    """Write what is in a run's file to stdout; returns the exit status."""
    facts = describe(checkpoint.load(runs.find_run(run, folder, best=run is not None or not runs.run_names(folder))))
    if as_json:
        print(dump(facts))
        return 0
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        if key != "history":
            print(f"{key:<{width}}  {_readable(key, value)}")
    if rows := facts["history"]:
        print("history")
        for row in rows[:: max(1, len(rows) // 20)]:
            val = "-" if row["val_nats"] is None else f"{row['val_nats']:.3f}"
            print(
                f"  step {row['step']:>8,}  training {row['loss_nats']:.3f}  held out {val}  gradient {row['grad_norm']:.2f}  |c| {row['cell_max']:.1f}  weights {row['weight_norm']:.1f}  update {row['update_ratio']:.1e}  saturated {row['saturated']:.0%}"
            )
    others = [name for name in runs.run_names(folder) if name != facts["name"]]
    if run is None and others:
        print(f"other runs: {', '.join(others)}")
    return 0


def describe(found: Checkpoint) -> dict[str, Any]:
    """What is in a checkpoint, under the names that `info --json` keeps."""
    model, config, text = found.writer.config, found.config, found.text
    last = found.history[-1] if found.history else None
    return {
        "name": found.path.name.removesuffix(runs.BEST_SUFFIX).removesuffix(runs.SUFFIX),
        "path": str(found.path),
        "bytes": found.bytes,
        "format": checkpoint.FORMAT,
        "resumable": found.resumable,
        "step": found.step,
        "steps": found.plan.last,
        "chars_trained": found.step * config.batch * config.seq,
        "parameters": sum(p.size for p in found.writer.params.values()),
        "hidden": model.hidden,
        "layers": model.layers,
        "embedding": model.embedding,
        "vocabulary": model.vocabulary,
        "loss_nats": last.loss_nats if last else None,
        "val_nats": last.val_nats if last else None,
        "best_val_nats": found.best_val_nats,
        "best_step": found.best_step,
        "text": list(text.sources),
        "text_chars": text.chars,
        "text_sha256": text.sha256,
        "encoding": text.encoding,
        **{name: value for name, value in vars(config).items() if name not in ("hidden", "layers")},
        "history": [vars(point) for point in found.history],
    }


def _readable(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key.endswith("_nats"):
        return f"{value:.4f} nats ({bits(value):.4f} bits)"
    if isinstance(value, list):
        return visible(", ".join(value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
