"""Entry point of ``python -m charlstm`` and ``charlstm``; Ctrl-C exits quietly even during imports."""

import sys


def main() -> int:
    """Run the program and return its exit status."""
    try:
        from charlstm import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
