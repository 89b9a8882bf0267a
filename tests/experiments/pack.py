"""Packs a model for bundling: parameters in float16, sources without their folders, half the size.

python -m tests.experiments.pack checkpoints/NAME.best.npz TARGET.npz
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np


def pack(source: Path, target: Path) -> None:
    """Write the packed copy of a model."""
    with np.load(source) as file:
        members = dict(file)
    meta = json.loads(members["meta"].tobytes())
    if meta["run"] is not None:
        raise SystemExit(f"{source} can be resumed, so its parameters stay in float32: give NAME.best.npz")
    meta["text"]["sources"] = [Path(name).name for name in meta["text"]["sources"]]
    members["meta"] = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), np.uint8)
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in members.items():
            half = array.astype(np.float16) if name.startswith("param/") else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, half, allow_pickle=False)


def main() -> None:
    """Pack the model that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.pack", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    pack(options.source, options.target)


if __name__ == "__main__":
    main()
