"""Packs a model for bundling: parameters in float16, sources without their folders, half the size.

    python -m tests.experiments.pack checkpoints/NAME.best.npz TARGET.npz
    python -m tests.experiments.pack checkpoints/fables.npz checkpoints/fables.npz --lines corpora/fables.txt

With `--lines TEXT` it adds what models of older versions lack, the lengths of the text's lines, and leaves the parameters
as they are, to the byte. TEXT must be the training text, which its SHA-256 shows.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from charlstm.text import corpus
from charlstm.text.lines import line_quantiles


def pack(source: Path, target: Path, text: Path | None = None) -> None:
    """Write the packed copy of a model, or with `text` a copy that knows the lengths of its lines."""
    with np.load(source) as file:
        members = dict(file)
    meta = json.loads(members["meta"].tobytes())
    if meta["run"] is not None:
        raise SystemExit(f"{source} can be resumed, so its parameters stay in float32: give NAME.best.npz")
    meta["text"]["sources"] = [Path(name).name for name in meta["text"]["sources"]]
    if text is not None:
        meta["line_chars"] = line_chars(meta, text)
    members["meta"] = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8)
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in members.items():
            half = text is None and name.startswith("param/")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array.astype(np.float16) if half else array, allow_pickle=False)


def line_chars(meta: dict[str, Any], text: Path) -> tuple[int, ...]:
    """Return the quantiles of the lengths of the lines that a model was trained on, as a new run would save them."""
    read = corpus.read([str(text)])
    if read.info.sha256 != meta["text"]["sha256"]:
        raise SystemExit(f"{text} has the SHA-256 {read.info.sha256}, not that of the training text")
    return line_quantiles(read.split(meta["config"]["val_fraction"])[0], read.vocabulary)


def main() -> None:
    """Pack the model that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.pack", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--lines", type=Path, metavar="TEXT", help="add the lengths of this text's lines, and no more")
    options = parser.parse_args()
    pack(options.source, options.target, options.lines)


if __name__ == "__main__":
    main()
