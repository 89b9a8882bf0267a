"""Entry point of ``python -m charlstm`` and ``charlstm``: a signal gives the same exit status from the first import to the end."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from charlstm import launcher
from charlstm.errors import SIGNALS


def main() -> int:
    """Run the program and return its exit status."""
    for name in ("SIGTERM", "SIGHUP"):
        _set(name, _leave)
    _set("SIGUSR1", lambda number, frame: None)  # a request to save, before there is anything to save
    if launcher.started_as()[0] > 0:  # one process of a job speaks for all
        if sys.argv[1:2] not in (["train"], ["resume"], ["sample"], ["eval"]):
            return 0
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        from charlstm.cli import app

        status = app.main()
    except KeyboardInterrupt:
        status = SIGNALS["SIGINT"]
    for name in SIGNALS:
        _set(name, signal.SIG_IGN)  # everything is done, so its status stands
    if launcher.abort is not None:
        launcher.abort(status or 1)
    return status


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(SIGNALS[signal.Signals(number).name])


def _set(name: str, handler: Any) -> None:
    """Handle a signal, unless the system has no such signal or it is ignored (nohup)."""
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
