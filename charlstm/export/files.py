"""Writes a model as a file for other programs; the ending of the file chooses the format."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from charlstm.errors import UsageError
from charlstm.export.page import Facts, build
from charlstm.export.weights import safetensors
from charlstm.settings import SampleConfig
from charlstm.storage import atomic
from charlstm.storage.checkpoint import Checkpoint

FORMATS = (".html", ".safetensors")


def write(file: Checkpoint, name: str, target: Path, bits: int = 16, force: bool = False) -> None:
    """Write the model of a checkpoint.

    Args:
        file: the checkpoint.
        name: of the run.
        target: a file name that ends in one of `FORMATS`.
        bits: 16 or 8 bits per weight; for .html only.
        force: replace an existing file.

    Raises:
        UsageError: the format is unknown, the file exists, or the package that writes it is missing.
        SaveError: the file can't be written.
    """
    ending = target.suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"{target} has no known format: give a file name that ends in {' or '.join(FORMATS)}")
    if target.exists() and not force:
        raise UsageError(f"{target} already exists: add `force` to replace it, or give another name")
    model = file.char_model
    if ending == ".html":
        sample, facts = SampleConfig(), Facts(name, file.text.sources, file.text.chars, file.best_val_nats)
        data = build(
            model.config, model.params, model.vocabulary.characters, facts,
            line_chars=model.line_chars, bits=bits, temperature=sample.temperature, top_p=sample.top_p,
        )  # fmt: skip
    elif bits != 16:
        raise UsageError(f"`bits` {bits} applies to .html only: a .safetensors file contains float32 numbers")
    else:
        about = {"name": name, "step": file.step, "val_nats": file.best_val_nats}
        data = safetensors(model.params, model.config, model.vocabulary.characters, about)

    def write_data(out: BinaryIO) -> None:
        out.write(data)

    atomic.write_atomically(target, write_data, "another FILE")
