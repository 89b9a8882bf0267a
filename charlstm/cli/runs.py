"""The command `runs`: lists, renames and removes runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from charlstm import blas
from charlstm.cli.options import JSON, Checkpoints, complete_run, option
from charlstm.cli.output import need_stdout, write_path
from charlstm.errors import UsageError
from charlstm.settings import RUNS
from charlstm.storage.runs import RunFiles

WORDS = {"remove": "--remove", "rm": "--remove", "delete": "--remove", "rename": "--rename NEW", "mv": "--rename NEW"}


def runs(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Names of runs.", show_default=False, autocompletion=complete_run),
    ] = None,
    rename: Annotated[
        str | None, option("--rename", "New name for the run.", show_default=False, metavar="NAME")
    ] = None,
    remove: Annotated[bool, option("--remove", "Remove the runs with all their files.", show_default=False)] = False,
    json: JSON = False,
    checkpoints: Checkpoints = RUNS,
) -> int:
    """List all runs, or rename or remove some with all their files. A run in training is left alone.

    charlstm runs                                  # list all runs, newest first
    charlstm runs trumptweets --rename tweets      # rename a run
    charlstm runs tweets --remove                  # remove a run
    """
    names = names or []
    if rename is not None and remove:
        raise UsageError("--rename and --remove can't be combined: leave one of them out")
    if rename is not None and len(names) != 1:
        raise UsageError("--rename needs one run: type 'charlstm runs RUN --rename NAME'")
    if remove and not names:
        raise UsageError("--remove needs a run: type 'charlstm runs RUN --remove'")
    if names and rename is None and not remove:
        word = WORDS.get(names[0], "--remove or --rename NAME")
        raise UsageError(
            f"nothing to do with {names[-1]!r}: add {word}, or see it with 'charlstm info {RunFiles.named(names[-1], checkpoints).typed}'"
        )
    need_stdout()
    blas.prepare()
    from charlstm.storage import manage  # loads NumPy

    if rename is not None:
        changed = manage.rename_run(names[0], rename, checkpoints)
    elif remove:
        changed = manage.remove_runs(list(dict.fromkeys(names)), checkpoints)
    else:
        from charlstm.cli.info import write_list

        return write_list(checkpoints, as_json=json)
    for path in changed:
        write_path(path)
    if remove:
        print(f"removed {len(changed)} files", file=sys.stderr)
    return 0
