"""What `info` puts on stdout: what is in a run's file, and which runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charlstm import checkpoint, runs
from charlstm.checkpoint import Checkpoint
from charlstm.display.jsonl import dump
from charlstm.display.words import bits, visible


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
