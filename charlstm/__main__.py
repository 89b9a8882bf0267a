"""Entry point of ``python -m charlstm`` and ``charlstm``; Ctrl-C exits quietly even during imports."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the program and return its exit status."""
    try:
        from charlstm.cli import app
    except KeyboardInterrupt:
        return 130
    return app.main()


if __name__ == "__main__":
    sys.exit(main())
