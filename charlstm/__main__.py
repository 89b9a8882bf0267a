"""``python -m charlstm`` is ``charlstm``; Ctrl-C while the command line itself is still being loaded ends it quietly, too."""

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
