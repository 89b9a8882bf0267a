"""The command `export`: a model for people without charlstm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from charlstm import blas
from charlstm.cli.options import Checkpoints, complete_run, expanded, option
from charlstm.cli.output import write_path
from charlstm.settings import RUNS


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Name or file of a run.", show_default=False, autocompletion=complete_run),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write; .html or .safetensors.",
            show_default=False,
            callback=expanded,
            readable=False,
        ),
    ],
    bits: Annotated[int, option("--bits", "Bits per weight of a page: 16 or 8.")] = 16,
    force: Annotated[bool, option("--force", "Replace FILE if it exists.", show_default=False)] = False,
    checkpoints: Checkpoints = RUNS,
) -> int:
    """Write a model for other programs: a page that writes text in any browser, or tensors for PyTorch.

    charlstm export fables fables.html            # one file that works offline: open it, send it, publish it
    charlstm export fables fables.safetensors     # for torch.nn.LSTM
    """
    blas.prepare()
    from charlstm import api  # loads NumPy

    api.load(run, checkpoints).export(file, bits=bits, force=force)
    write_path(file)
    return 0
