"""`python -m tinyvae` is the command `tinyvae`."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Run `tinyvae` with these arguments (default: the process's own); the exit code. Ctrl-C ends it at any time."""
    try:
        from tinyvae.commands import main as command

        return command(argv)
    except KeyboardInterrupt:
        print("tinyvae: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
